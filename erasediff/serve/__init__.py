"""Serving: sampling over onnxruntime without torch or diffusers."""
