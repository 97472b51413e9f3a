"""The steps of an erasure: :mod:`~erasediff.steps.table` lists them, and each has its own module."""
