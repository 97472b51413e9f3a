"""The component ``export_onnx``."""
