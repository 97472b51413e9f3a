"""Evaluation seeds: a secret is committed before the erasure runs, seeds are derived from it, and the verdict reveals it."""

from __future__ import annotations

import hashlib
import hmac
import secrets

_SEED_BITS = 53  # canonical JSON (RFC 8785) keeps integers exact up to 2^53


def secret_key() -> bytes:
    """A new key for all evaluation seeds of an attempt: nobody can tune a model to images that nobody can compute yet."""
    return secrets.token_bytes(32)


def seed_commitment(key: bytes) -> str:
    """What the plan says of the evaluation seeds before the erasure runs: the key's SHA-256."""
    return hashlib.sha256(key).hexdigest()


def evaluation_key(seed: int) -> bytes:
    """A key that is no secret: what is measured with it can be measured again by anyone. For benchmarks and looking."""
    return hashlib.sha256(f"erasediff evaluation key {seed}".encode()).digest()


def check_seeds(key: bytes, check: str, count: int) -> list[int]:
    """Seeds of one check: HMAC-SHA256(key, check ‖ i). Checks never share an image."""
    digests = (hmac.new(key, f"{check}|{i}".encode(), hashlib.sha256).digest() for i in range(count))
    return [int.from_bytes(digest[:8], "big") >> (64 - _SEED_BITS) for digest in digests]
