"""Evaluation seeds: committed before the erasure runs, derived check by check afterwards."""

from __future__ import annotations

import hashlib
import hmac

_SEED_BITS = 53  # canonical JSON (RFC 8785) keeps integers exact up to 2^53


def evaluation_key(seed: int) -> bytes:
    """The key that all evaluation seeds of a run come from; its SHA-256 is committed in the plan."""
    return hashlib.sha256(f"erasediff evaluation key {seed}".encode()).digest()


def seed_commitment(seed: int) -> str:
    """What the plan says of the evaluation seeds before the erasure runs."""
    return hashlib.sha256(evaluation_key(seed)).hexdigest()


def check_seeds(key: bytes, check: str, count: int) -> list[int]:
    """Seeds of one check: HMAC-SHA256(key, check ‖ i). Checks never share an image."""
    digests = (hmac.new(key, f"{check}|{i}".encode(), hashlib.sha256).digest() for i in range(count))
    return [int.from_bytes(digest[:8], "big") >> (64 - _SEED_BITS) for digest in digests]
