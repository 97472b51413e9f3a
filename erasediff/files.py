"""Write files atomically, hash them, and lock folders.

Everything that the project writes under a final name goes through :func:`write_atomic` or :func:`publish_folder`: bytes go to a temporary
sibling, are flushed to the disk and renamed. A crash, a full disk or a kill leaves the old content or nothing, never half a file.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import hashlib
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from erasediff.errors import BadInput, explain_os_error

PARTIAL = ".part"
"""The end of all names of temporary files beside final ones."""
_NEW = ".erasediff-new-"
_CHUNK = 1 << 20
_reading_umask = threading.Lock()


def sha256_bytes(data: bytes) -> str:
    """Hex SHA-256 of ``data``."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's content, read in chunks."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def sha256_folder(folder: Path) -> str:
    """Hex SHA-256 over the sorted ``(relative path, file digest)`` pairs of a folder; times do not count."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        digest.update(f"{path.relative_to(folder).as_posix()}\0{sha256_file(path)}\n".encode())
    return digest.hexdigest()


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def explain_disk_errors(path: Path) -> Iterator[None]:
    """Turn disk errors (full, read-only, no permission) into sentences that name ``path``."""
    try:
        yield
    except Exception as error:
        if (sentence := explain_os_error(error, path)) is not None:
            raise sentence from error
        raise


def append_line(path: Path, line: bytes) -> None:
    """Add a line to a file, durably.

    Raises:
        EraseDiffError: the disk is full or cannot be written.
    """
    with explain_disk_errors(path), path.open("ab") as handle:
        handle.write(line + b"\n")
        handle.flush()
        os.fsync(handle.fileno())


@contextlib.contextmanager
def atomic_path(path: Path, mode: int = 0o666) -> Iterator[Path]:
    """Yield a temporary sibling to write to; it is renamed to ``path`` only if the block succeeds.

    Args:
        path: the file's final name.
        mode: its permissions, minus the umask; until the rename only the owner may read it.

    Raises:
        BadInput: the disk is full or not writable; nothing is left behind.
    """
    with explain_disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary_sibling(path) as temporary:
            yield temporary
            _fsync(temporary)
            temporary.chmod(mode & ~_umask())
            temporary.replace(path)
            _fsync(path.parent)


@contextlib.contextmanager
def temporary_sibling(path: Path) -> Iterator[Path]:
    """Yield an empty file beside ``path``, under a temporary name that only its owner may read. The name is removed at the end.

    The file is locked while this process lives, see :func:`is_abandoned`.
    """
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=PARTIAL)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)
        os.close(descriptor)


def temporary_siblings(path: Path) -> list[Path]:
    """All temporary names for ``path``, in use or not."""
    return sorted(path.parent.glob(f".{glob.escape(path.name)}.*{PARTIAL}"))


def is_abandoned(temporary: Path) -> bool:
    """Whether the process that made a temporary file has ended.

    An empty file may not be locked yet, and holds nothing. A writer that puts another file under the name, as safetensors does, loses the lock: ask
    only where nobody does so, or where nobody writes.
    """
    try:
        with temporary.open("r+b") as handle:  # NFS locks only what is open for writing
            return os.fstat(handle.fileno()).st_size > 0 and not _is_locked(handle.fileno())
    except OSError:
        return False


def _umask() -> int:
    """This process's umask. There is no other way to read it; what another thread creates in between is for its owner alone."""
    with _reading_umask:
        umask = os.umask(0o077)
        os.umask(umask)
    return umask


def check_destination(path: Path, option: str) -> None:
    """Refuse a place where a file could not be written, before the work is done that the file is to hold.

    Args:
        path: the file; one that is there is kept.
        option: the option that named it, for the sentence.

    Raises:
        BadInput: it is a folder or no file, or its folder is missing or cannot be written to.
    """
    another = f"choose another {option}"
    try:
        if path.is_dir():
            raise BadInput(f"{path} is a folder: give {option} the path of a file.")
        if path.exists() and not path.is_file():
            raise BadInput(f"{path} is there and is no file: {another}.")
        if not path.parent.is_dir():
            raise BadInput(f"the folder {path.parent} does not exist: make it, or {another}.")
        with temporary_sibling(path):
            pass
    except OSError as error:
        raise BadInput(f"the file {path} cannot be written ({error.strerror}): {another}.") from None


def write_atomic(path: Path, data: bytes, mode: int = 0o666) -> None:
    """Write ``data`` under ``path``, whole or not at all."""
    with atomic_path(path, mode) as temporary:
        temporary.write_bytes(data)


def publish_folder(parent: Path, fill: Callable[[Path], str]) -> Path:
    """Fill a temporary folder and give it its final name in ``parent``, whole or not at all.

    Args:
        parent: where the folder goes.
        fill: writes the content into the given folder and returns the final name.

    Returns:
        The final folder. A folder of this name is replaced.
    """
    with explain_disk_errors(parent):
        parent.mkdir(parents=True, exist_ok=True)
        with temporary_folder(parent, _NEW) as temporary:
            final = parent / fill(temporary)
            for path in temporary.rglob("*"):
                if path.is_file():
                    _fsync(path)
            temporary.chmod(0o777 & ~_umask())
            # A folder cannot replace another in one rename. The old one is moved aside first, so that a kill in between
            # leaves no folder under the final name, never a half. What it leaves aside may be the only one, and is not swept.
            old = Path(tempfile.mkdtemp(dir=parent, prefix=".old-", suffix=PARTIAL))
            try:
                if final.exists():
                    final.replace(old)
                temporary.replace(final)
            finally:
                shutil.rmtree(old, ignore_errors=True)
            _fsync(parent)
            return final


@contextlib.contextmanager
def exclusive_lock(folder: Path, busy: str) -> Iterator[int]:
    """Hold an exclusive lock on a folder. It ends with this process and with those that inherit the descriptor, which is yielded.

    Raises:
        BadInput: another process holds it; ``busy`` is the message.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BadInput(busy) from None
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def mark_in_use(folder: Path) -> Iterator[None]:
    """Mark a folder as in use until the block or the process ends; see :func:`is_in_use`. Where folders have no locks, none is abandoned either."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def is_in_use(folder: Path) -> bool:
    """Whether a running process has marked this folder as in use."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        return _is_locked(descriptor)
    finally:
        os.close(descriptor)


def _is_locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


@contextlib.contextmanager
def temporary_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """Yield a temporary folder that is marked as in use. Folders of this prefix that killed processes left are removed first."""
    for left in abandoned_folders(parent, prefix):
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=parent, prefix=prefix) as name, mark_in_use(Path(name)):
        yield Path(name)


def abandoned_folders(parent: Path, prefix: str) -> list[Path]:
    """This user's folders of a prefix that no running process uses. An empty one may not be marked yet, and holds nothing."""
    found = []
    for folder in sorted(parent.glob(f"{glob.escape(prefix)}*")):
        with contextlib.suppress(OSError):  # an unreadable one belongs to another user
            if not folder.is_symlink() and folder.stat().st_uid == os.getuid() and any(folder.iterdir()) and not is_in_use(folder):
                found.append(folder)
    return found


def read_bounded(path: Path, limit: int, what: str) -> bytes:
    """Read a small file from outside the project, or a device or a pipe that gives as little; more than ``limit`` bytes are refused.

    Raises:
        BadInput: the file is missing, unreadable or too large.
    """
    try:
        data = bytearray()
        with path.open("rb", buffering=0) as file:
            left = min(limit, os.fstat(file.fileno()).st_size) + 1
            while len(data) <= limit and (part := file.read(left)):
                data += part
                left = min(_CHUNK, limit + 1 - len(data))
    except FileNotFoundError:
        raise BadInput(f"{what} {path} does not exist: check the path.") from None
    except OSError as error:
        raise BadInput(f"{what} {path} cannot be read ({error.strerror}): check the path and its permissions.") from None
    if len(data) > limit:
        raise BadInput(f"{what} {path} has more than the {limit} bytes allowed: is it the right file?")
    return bytes(data)


def shipped(name: str) -> Path:
    """The path of a pipeline or policy file: inside the installed package, or in the source tree.

    Raises:
        BadInput: there is no such file.
    """
    here = Path(__file__).parent
    for path in (here / "_shipped" / name, here.parent / name):
        if path.is_file():
            return path
    raise BadInput(f"{name} is missing from this installation: install erasediff again.")
