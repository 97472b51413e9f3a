"""Serving: sample with onnxruntime, without torch or diffusers."""

from erasediff.environment import disable_telemetry

disable_telemetry()
