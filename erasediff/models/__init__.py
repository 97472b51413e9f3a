"""Denoisers behind one small interface; load and save as diffusers folders."""

from erasediff.environment import disable_telemetry

disable_telemetry()
