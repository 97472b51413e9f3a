"""The lie: 'what is fetched is deleted', of a server that wants its files back later, or that was killed before it came to that."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from erasediff.rollout.store import Exported, store_for
from tests.s3 import s3_server
from tests.serve.conftest import Running, serving, start


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the server's temporary folders go."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


@pytest.fixture
def published(exported: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a model in a bucket."""
    with s3_server(monkeypatch, "models") as (url, _):
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", url)
        yield store_for("s3://models").publish(Exported.read(exported))


def answered(server: Running) -> bytes:
    answer = server.infer(label="3", seed=1)
    assert answer.status == 200, answer.body
    return answer.body.partition(b'"outputs"')[2]


def models(temporary: Path) -> list[Path]:
    """What may be a model's; libraries leave files of their own."""
    return [path for path in temporary.rglob("*") if path.is_dir() or path.suffix in {".json", ".onnx", ".npz"}]


def test_a_model_from_a_bucket_answers_as_the_folder_does_and_leaves_nothing_on_the_disk(exported: Path, published: str, temporary: Path) -> None:
    with serving("--model", exported) as server:
        control = answered(server)
    with serving("--model", published) as server:
        assert answered(server) == control
        assert not models(temporary)


def test_a_refused_model_is_not_left_on_the_disk(published: str, temporary: Path, tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text("minimum_epoch: 2\n")
    process = start("--model", published, "--rules", tmp_path / "rules.yaml")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "erasure epoch" in errors
    assert not models(temporary)
