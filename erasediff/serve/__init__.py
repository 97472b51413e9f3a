"""Serving: sample with onnxruntime, without torch or diffusers."""
