"""Sampling, detectors, statistics, the gate and the report."""

from erasediff.environment import disable_telemetry

disable_telemetry()
