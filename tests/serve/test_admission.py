"""The lie: 'only what passed is served', of a server that serves whatever lies in the folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from erasediff.errors import BadInput, EraseDiffError, IntegrityError
from erasediff.export.solvers import solver_table
from erasediff.files import sha256_file
from erasediff.models.process import squared_cosine
from erasediff.records.base import Pointer
from erasediff.records.core import DATA_SUFFIX, MANIFEST, Verdict
from erasediff.records.serving import ServingRules
from erasediff.serve.admission import Admitted, admit
from erasediff.serve.solver import save_table
from tests.exported import describe
from tests.issuer import issuer_key

WEIGHTS = "1" * 64


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model.onnx").write_bytes(b"a graph")
    table = solver_table("ddim", 5, squared_cosine(1000))
    save_table("ddim-5", table, tmp_path / "solvers.npz")
    write(tmp_path)
    return tmp_path


def write(folder: Path, **changes: object) -> None:
    describe(folder, **{"epoch": 2, "solver": "ddim-5", "weights_sha256": WEIGHTS} | changes)


def admitted(folder: Path, rules: ServingRules) -> Admitted:
    """By the key of the tests' issuer."""
    return admit(folder, rules, issuer_key().public)


def test_control_what_passed_and_is_whole_is_admitted(folder: Path) -> None:
    found = admitted(folder, ServingRules(minimum_epoch=2, revoked=("2" * 64,)))
    assert found.model.forgotten == ("8",)
    assert found.graph == folder / "model.onnx"
    assert found.table.steps == 5


@pytest.mark.parametrize("verdict", [Verdict.FAIL, Verdict.INCONCLUSIVE])
def test_what_did_not_pass_is_refused(folder: Path, verdict: Verdict) -> None:
    write(folder, verdict=verdict)
    with pytest.raises(BadInput, match=f"verdict is {verdict}"):
        admitted(folder, ServingRules())


def test_an_older_model_than_a_promoted_erasure_is_refused(folder: Path) -> None:
    """A roll-back would bring back what was forgotten since."""
    with pytest.raises(BadInput, match="epoch 2, below the minimum 3"):
        admitted(folder, ServingRules(minimum_epoch=3))


@pytest.mark.parametrize("which", ["weights", "graph"])
def test_what_was_revoked_is_refused(folder: Path, which: str) -> None:
    digest = WEIGHTS if which == "weights" else sha256_file(folder / "model.onnx")
    with pytest.raises(BadInput, match="has been revoked"):
        admitted(folder, ServingRules(revoked=(digest,)))


@pytest.mark.parametrize("name", ["model.onnx", "solvers.npz"])
@pytest.mark.parametrize("damage", ["a byte", "gone"])
def test_files_that_are_not_the_measured_ones_are_refused(folder: Path, name: str, damage: str) -> None:
    path = folder / name
    content = path.read_bytes()
    path.unlink()
    if damage == "a byte":
        path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    with pytest.raises(IntegrityError, match="not the file that was measured"):
        admitted(folder, ServingRules())


def test_a_verdict_about_another_solver_is_refused(folder: Path) -> None:
    write(folder, solver="unipc-5")
    with pytest.raises(IntegrityError, match="has no table of the measured solver unipc-5"):
        admitted(folder, ServingRules())


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff", b'{"verdict": "PASS"}', b"x" * 12_000_000])
def test_a_manifest_that_is_none_is_refused_with_a_sentence(folder: Path, content: bytes) -> None:
    (folder / MANIFEST).write_bytes(content)
    with pytest.raises(EraseDiffError) as refused:
        admitted(folder, ServingRules())
    assert "\n" not in str(refused.value)
    (folder / MANIFEST).unlink()
    with pytest.raises(BadInput, match=r"holds no served\.json.*`erasediff import-base`"):
        admitted(folder, ServingRules())


def test_no_file_outside_the_folder_is_read(folder: Path) -> None:
    """A manifest comes from outside."""
    write(folder, onnx=Pointer(uri="../../../etc/passwd", sha256="0" * 64))
    with pytest.raises(IntegrityError, match=f"{folder.name}/passwd is not the file"):
        admitted(folder, ServingRules())


def test_weights_that_the_manifest_does_not_name_are_refused(folder: Path) -> None:
    """A graph would read them. Control: without them the folder is admitted."""
    admitted(folder, ServingRules())
    (folder / f"model.onnx{DATA_SUFFIX}").write_bytes(b"weights")
    with pytest.raises(IntegrityError, match=r"model\.onnx\.data lies beside the graph and its manifest does not name it"):
        admitted(folder, ServingRules())
