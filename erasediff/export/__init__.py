"""ONNX export and parity with the model it came from."""
