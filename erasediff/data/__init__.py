"""Datasets, the forget/retain split, deterministic shards, and the one adapter over DVC."""
