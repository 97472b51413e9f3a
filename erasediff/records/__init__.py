"""Immutable records, the run's configuration, the gate's policies, and settings from the environment."""
