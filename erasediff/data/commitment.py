"""Keyed commitments to the forget set.

Anyone who holds a picture could test it against a plain hash of the images or of their positions, long after the images are deleted. So the hashes
in records, in DVC and in MLflow are keyed: every shard and the manifest carry an HMAC (RFC 2104, with SHA-256) under a random key of the request,
and the purge destroys the key.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import secrets
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from erasediff.errors import BadInput, IntegrityError
from erasediff.files import PARTIAL, explain_disk_errors, is_abandoned, temporary_sibling, temporary_siblings

KEY_BYTES = 32


def request_key(path: Path) -> bytes:
    """The key of a request: the existing one, or a new one that only its owner may read.

    Raises:
        IntegrityError: the file does not hold a key.
        BadInput: the disk is full or cannot be written.
    """
    with explain_disk_errors(path):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in filter(is_abandoned, temporary_siblings(path)):
            name.unlink(missing_ok=True)
        if not path.exists():
            _make(path)
        return read_key(path)


def read_key(path: Path) -> bytes:
    """The existing key of a request.

    Raises:
        BadInput: it is gone.
        IntegrityError: the file does not hold a key.
    """
    try:
        key = path.read_bytes()
    except FileNotFoundError:
        raise BadInput("the key of this forget set is gone, by a purge or by hand: open a new attempt and version it again.") from None
    if len(key) != KEY_BYTES:
        raise IntegrityError(f"the key of this request has {len(key)} bytes instead of {KEY_BYTES}: restore it, or remove it and open a new attempt.")
    return key


def _make(path: Path) -> None:
    """Create the key by a hard link, which fails if the name exists: two steps at once get one key.

    A process that is killed in between leaves a temporary name of the key, see :func:`key_names`.
    """
    with temporary_sibling(path) as temporary:
        with temporary.open("r+b") as handle:
            handle.write(secrets.token_bytes(KEY_BYTES))
            handle.flush()
            os.fsync(handle.fileno())
        with contextlib.suppress(FileExistsError, FileNotFoundError):  # not found: a purge has just removed it
            os.link(temporary, path)


def key_names(path: Path) -> list[Path]:
    """Every name of a request's key, its own name last: temporary ones for it, and any other name of the same file.

    Temporary names of earlier versions do not say whose they are. One that is the only name of its file is no key in use, and is listed too.
    """
    former = [name for name in sorted(path.parent.glob(f".key-*{PARTIAL}")) if name.stat().st_nlink == 1 or _same(name, path)]
    return [*temporary_siblings(path), *former, *([path] if path.exists() else [])]


def _same(name: Path, path: Path) -> bool:
    return path.exists() and name.samefile(path)


def commitment(key: bytes, purpose: str, *parts: bytes | memoryview) -> bytes:
    """HMAC-SHA256 over a purpose and parts, each with its length in front so that no two lists of parts are one message."""
    message = hmac.new(key, digestmod=hashlib.sha256)
    for part in (purpose.encode(), *parts):
        message.update(memoryview(part).nbytes.to_bytes(8, "big"))
        message.update(part)
    return message.digest()


def indices_commitment(key: bytes, indices: NDArray[np.int64]) -> str:
    """Hex commitment to int64 positions [K], as little-endian bytes."""
    return commitment(key, "indices", np.ascontiguousarray(indices, dtype="<i8").tobytes()).hex()
