"""The lie: 'the file is there, so it is whole'."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors import SafetensorError

from erasediff.errors import BadInput
from erasediff.files import atomic_path, explain_disk_errors, publish_folder, read_bounded, sha256_bytes, sha256_file, sha256_folder, write_atomic

OLD = b"old content"
BIG = b"x" * 200_000


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def run_killed(code: str, *arguments: object) -> None:
    """Run a program that kills itself with SIGKILL, which no `finally` survives."""
    program = (
        f"import os, signal, sys\nfrom pathlib import Path\npath = Path(sys.argv[1])\ndie = lambda: os.kill(os.getpid(), signal.SIGKILL)\n{code}"
    )
    done = subprocess.run([sys.executable, "-c", program, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr


def fill_with(content: dict[str, bytes], name: str = "final", error: Exception | None = None):
    def fill(folder: Path) -> str:
        for file, data in content.items():
            (folder / file).write_bytes(data)
        if error:
            raise error
        return name

    return fill


def test_new_content_replaces_old_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "deeper" / "record.json"
    write_atomic(path, OLD)
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    assert names(path.parent) == {"record.json"}
    assert path.stat().st_mode & 0o777 == 0o644


def test_the_new_content_takes_the_name_by_a_rename(tmp_path: Path) -> None:
    """The file under the final name is the very file that was written aside; a copy would pass through a half."""
    path = tmp_path / "record.json"
    write_atomic(path, OLD)
    with atomic_path(path) as temporary:
        temporary.write_bytes(b"new")
        written = temporary.stat().st_ino
        assert path.stat().st_ino != written
    assert path.stat().st_ino == written


def test_an_error_while_writing_leaves_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    write_atomic(path, OLD)

    def write() -> None:
        with atomic_path(path) as temporary:
            temporary.write_bytes(b"half of the n")
            raise KeyError("crash")

    with pytest.raises(KeyError):
        write()
    assert path.read_bytes() == OLD
    assert names(tmp_path) == {"record.json"}


def test_a_kill_while_writing_leaves_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_bytes(OLD)
    code = "from erasediff.files import atomic_path\nwith atomic_path(path) as temporary:\n    temporary.write_bytes(b'half')\n    die()"
    run_killed(code, path)
    assert path.read_bytes() == OLD


def test_control_a_kill_while_writing_plainly_leaves_a_half(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_bytes(OLD)
    run_killed("handle = path.open('wb', buffering=0)\nhandle.write(b'half')\ndie()", path)
    assert path.read_bytes() == b"half"


def test_a_full_disk_gives_one_sentence_and_leaves_the_old_content(small_disk: Path) -> None:
    path = small_disk / "record.json"
    write_atomic(path, OLD)
    with pytest.raises(BadInput, match=r"^no space is left on the device that holds .*record\.json: .*\.$"):
        write_atomic(path, BIG)
    assert path.read_bytes() == OLD
    assert names(small_disk) == {"record.json"}
    write_atomic(path, b"new")  # the failed attempt does not hold on to the space
    assert path.read_bytes() == b"new"


def test_control_a_plain_write_on_a_full_disk_leaves_a_half(small_disk: Path) -> None:
    path = small_disk / "record.json"
    with pytest.raises(OSError, match="No space left"):
        path.write_bytes(BIG)
    assert 0 < path.stat().st_size < len(BIG)


def test_a_full_disk_publishes_no_folder(small_disk: Path) -> None:
    kept = publish_folder(small_disk, fill_with({"weights": OLD}))
    with pytest.raises(BadInput, match="no space is left"):
        publish_folder(small_disk, fill_with({"config": b"{}", "weights": BIG}))
    assert names(small_disk) == {"final"}
    assert {p.name: p.read_bytes() for p in kept.iterdir()} == {"weights": OLD}


def test_a_folder_that_cannot_be_written_gives_one_sentence(read_only: Path) -> None:
    for write in (lambda: write_atomic(read_only / "a.json", OLD), lambda: publish_folder(read_only, fill_with({}))):
        with pytest.raises(BadInput, match=r"(read-only file system|no permission to write).*--workdir.*\.$"):
            write()
    assert names(read_only) == set()


def test_a_published_folder_replaces_the_old_one_whole(tmp_path: Path) -> None:
    """No file of the old folder survives in the new one."""
    publish_folder(tmp_path, fill_with({"weights": b"1", "stale": b"1"}))
    final = publish_folder(tmp_path, fill_with({"weights": b"2"}))
    assert {p.name: p.read_bytes() for p in final.iterdir()} == {"weights": b"2"}
    assert names(tmp_path) == {"final"}


def test_an_error_while_filling_leaves_the_old_folder(tmp_path: Path) -> None:
    publish_folder(tmp_path, fill_with({"weights": b"1"}))
    with pytest.raises(KeyError):
        publish_folder(tmp_path, fill_with({"weights": b"2"}, error=KeyError("crash")))
    assert names(tmp_path) == {"final"}
    assert (tmp_path / "final/weights").read_bytes() == b"1"


def test_a_kill_while_filling_leaves_the_old_folder_and_the_next_removes_the_rest(tmp_path: Path) -> None:
    """Controls: what a running process fills stays, and so do folders of others."""
    (tmp_path / ".new-house").mkdir()
    (tmp_path / ".new-house/plan").write_bytes(b"4")
    publish_folder(tmp_path, fill_with({"weights": b"1"}))
    code = (
        "from erasediff.files import publish_folder\n"
        "def fill(folder):\n    (folder / 'weights').write_bytes(b'2')\n    die()\n"
        "publish_folder(path, fill)"
    )
    run_killed(code, tmp_path)
    assert (tmp_path / "final/weights").read_bytes() == b"1"
    (left,) = names(tmp_path) - {"final", ".new-house"}

    def while_another_publishes(folder: Path) -> str:
        (folder / "weights").write_bytes(b"3")
        publish_folder(tmp_path, fill_with({}, "other"))
        assert names(tmp_path) == {"final", "other", ".new-house", folder.name}, left
        return "final"

    publish_folder(tmp_path, while_another_publishes)
    assert names(tmp_path) == {"final", "other", ".new-house"}


def test_a_kill_while_the_old_folder_is_replaced_leaves_no_half(tmp_path: Path) -> None:
    """Under the final name is a whole folder or none, also when the kill falls between two deletions of the old one."""
    publish_folder(tmp_path, fill_with({"a": b"1", "b": b"1"}))
    code = (
        "import shutil\nfrom erasediff.files import publish_folder\n"
        "def rmtree(folder, *a, **k):\n    next(p for p in Path(folder).iterdir()).unlink()\n    die()\n"
        "shutil.rmtree = rmtree\n"
        "def fill(folder):\n    for n in 'ab':\n        (folder / n).write_bytes(b'2')\n    return 'final'\n"
        "publish_folder(path, fill)"
    )
    run_killed(code, tmp_path)
    final = tmp_path / "final"
    assert not final.exists() or names(final) == {"a", "b"}
    before = names(tmp_path)
    publish_folder(tmp_path, fill_with({}, "other"))
    assert before - names(tmp_path) <= {name for name in before if name.startswith(".erasediff-new-")}, "what lay under the name is kept"


def test_a_folder_digest_sees_content_and_names_only(tmp_path: Path) -> None:
    for name, data, digest_changes in (("one", b"1", None), ("two", b"1", False), ("three", b"2", True)):
        (tmp_path / name / "deep").mkdir(parents=True)
        (tmp_path / name / "deep/file").write_bytes(data)
        if digest_changes is not None:
            assert (sha256_folder(tmp_path / name) != sha256_folder(tmp_path / "one")) is digest_changes
    (tmp_path / "two/deep/file").rename(tmp_path / "two/file")
    assert sha256_folder(tmp_path / "two") != sha256_folder(tmp_path / "one")


def test_file_and_bytes_agree_on_the_digest(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(BIG * 11)  # more than one chunk
    assert sha256_file(tmp_path / "file") == sha256_bytes(BIG * 11)


def test_a_file_from_outside_is_bounded(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_bytes(b"12345")
    assert read_bounded(tmp_path / "policy.yaml", 5, "the policy") == b"12345"
    for path, limit, what in (
        (tmp_path / "policy.yaml", 4, "more than the 4 bytes allowed"),
        (Path("/dev/zero"), 4, "more than the 4 bytes allowed"),
        (tmp_path / "no", 4, "does not exist"),
        (tmp_path, 10**6, "cannot be read"),
    ):
        with pytest.raises(BadInput, match=what):
            read_bounded(path, limit, "the policy")


@pytest.mark.parametrize(("mask", "file", "folder"), [("022", "644", "755"), ("077", "600", "700"), ("007", "660", "770")])
def test_what_is_written_obeys_the_umask(tmp_path: Path, mask: str, file: str, folder: str) -> None:
    code = (
        "import sys, pathlib; from erasediff.files import publish_folder, write_atomic; at = pathlib.Path(sys.argv[1]); "
        "write_atomic(at / 'file', b''); publish_folder(at, lambda new: 'folder')"
    )
    subprocess.run(["/bin/sh", "-c", f'umask {mask}; exec "$@"', "sh", sys.executable, "-c", code, tmp_path], check=True)
    assert [f"{(tmp_path / name).stat().st_mode & 0o777:o}" for name in ("file", "folder")] == [file, folder]


def test_a_full_disk_is_a_sentence_also_when_a_library_in_rust_reports_it(tmp_path: Path) -> None:
    """Control: an error of another number is nobody's sentence."""
    with pytest.raises(BadInput, match="no space is left on the device"), explain_disk_errors(tmp_path):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
    with pytest.raises(SafetensorError), explain_disk_errors(tmp_path):
        raise SafetensorError("Error while serializing: I/O error: Input/output error (os error 5)")
