"""Benchmarks: each writes ``benchmarks/results/<name>.json``; the tables in README and docs are generated from those files."""
