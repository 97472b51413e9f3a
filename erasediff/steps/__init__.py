"""The steps of an erasure: :mod:`~erasediff.steps.table` lists them, and each has a module of its own here."""
