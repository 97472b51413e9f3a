"""Datasets, the forget/retain split, deterministic shards, and the one adapter over DVC."""

from erasediff.environment import disable_telemetry

disable_telemetry()
