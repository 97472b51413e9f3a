"""Sampling, detectors, statistics, the gate and the report."""
