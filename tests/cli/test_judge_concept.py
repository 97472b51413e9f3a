"""The lies: exit 0 for what did not pass, 'no prompt was stored', 'it was measured again', of a verdict on a text-to-image erasure."""

from __future__ import annotations

import json
import pickle
import shutil
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import save_file

from erasediff.cli import main
from erasediff.evaluate.seeds import evaluation_key, seed_commitment
from erasediff.files import sha256_folder
from erasediff.models.layout import WEIGHTS
from erasediff.records.prompt_measurements import PromptMeasurements, PromptVerdict
from erasediff.steps import judge_concept as step
from tests.evaluate.prompt_gate_examples import counts, measurements
from tests.stable_diffusion import BLUE, GREEN, RED, state, write_images, write_model
from tests.tiny_clip import PROMPTS, write_clip, write_documents

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`base`, `erased` (by erase-concept, three steps), `clip`, `red` images."""
    folder = tmp_path_factory.mktemp("shelf")
    write_model(folder / "base")
    write_clip(folder / "clip")
    document = {
        "model": str(folder / "base"),
        "forget": str(write_images(folder / "red", [RED], each=2)),
        "retain": str(write_images(folder / "keep", [BLUE, GREEN], each=2)),
        "erase": {"steps": 3, "learning_rate": 1e-2, "batch_size": 4},
    }
    (folder / "erase.yaml").write_text(yaml.safe_dump(document))
    assert main(["erase-concept", "--config", str(folder / "erase.yaml"), "--out", str(folder / "erased")]) == 0
    return folder


def arguments(shelf: Path, tmp_path: Path, **changes: object) -> list[str]:
    if not (tmp_path / "policy.yaml").exists():
        write_documents(tmp_path)
    options = {
        "base": shelf / "base",
        "erased": shelf / "erased",
        "detector": shelf / "clip",
        "policy": tmp_path / "policy.yaml",
        "prompts": tmp_path / "prompts.yaml",
        "out": tmp_path / "out",
        "device": "cpu",
    }
    pairs = [(f"--{name}", str(value)) for name, value in (options | changes).items() if value is not None]
    return ["judge-concept", *(word for pair in pairs for word in pair)]


def everything(folder: Path) -> str:
    return "".join(path.read_text() for path in sorted(folder.rglob("*")) if path.is_file())


def test_a_random_judge_is_inconclusive_and_no_prompt_is_stored(
    shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All of it, with F5, in small: real folders, real pipelines, a CLIP of random weights that knows nothing; a key that is no secret."""
    monkeypatch.setattr(step, "secret_key", lambda: evaluation_key(0))
    before = {name: sha256_folder(shelf / name) for name in ("base", "erased", "clip", "red")}
    assert main(arguments(shelf, tmp_path, images=shelf / "red")) == 11
    captured = capsys.readouterr()
    verdict = PromptVerdict.read(tmp_path / "out/verdict.json")
    checks = {check.id: check for check in (*verdict.checks, *verdict.reported)}
    assert list(checks) == ["C0", "C0.detector", "C0.scorer", "F1", "F3", "R1p", "F5"]
    assert "INCONCLUSIVE" in {checks[name].verdict for name in ("C0", "C0.detector", "C0.scorer")}
    assert (checks["F1"].n, checks["R1p"].n, checks["F5"].n) == (6, 6, 4)
    assert captured.out.splitlines()[-1] == "INCONCLUSIVE"
    assert (verdict.base_sha256, verdict.erased_sha256, verdict.scorer_sha256) == tuple(before[name] for name in ("base", "erased", "clip"))
    measured = PromptMeasurements.read(tmp_path / "out/measurements.json")
    assert measured.made_from["seeds"] == seed_commitment(bytes.fromhex(verdict.evaluation_key))
    assert measured.made_from["images"] == before["red"]
    assert {name: sha256_folder(shelf / name) for name in before} == before, "folders are only read"
    said = everything(tmp_path / "out") + captured.out + captured.err
    spoken = [item["prompt"] for item in PROMPTS["concept"]] + [p for item in PROMPTS["concept"] for p in item["otherwise"] if " " in p]
    assert not [prompt for prompt in (*spoken, *PROMPTS["retained"], *PROMPTS["anchors"]) if prompt in said]
    assert all(prompt in (tmp_path / "prompts.yaml").read_text() for prompt in spoken), "control: they would be found"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["evaluation.key", "measurements.json", "verdict.json"]
    assert stat.S_IMODE((tmp_path / "out/evaluation.key").stat().st_mode) == 0o600


@pytest.mark.parametrize(("changes", "code"), [({}, 0), ({"erased": counts(10)}, 10), ({"base": counts(1)}, 11), ({"scores": None}, 11)])
def test_the_exit_code_is_the_verdict(
    shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], code: int
) -> None:
    """Measurements are made by hand, of the size that the shipped policy asks for; everything else is real."""
    monkeypatch.setattr(step, "examine", lambda examination: measurements(**changes))
    assert main(arguments(shelf, tmp_path, policy=None)) == code
    line = {0: "PASS", 10: "FAIL", 11: "INCONCLUSIVE"}[code]
    assert capsys.readouterr().out.splitlines()[-1] == line
    document = json.loads((tmp_path / "out/verdict.json").read_text())
    assert document["verdict"] == line
    assert document["policy"] == "text-to-image"
    assert {"id", "n", "value", "bound", "threshold", "verdict"} <= document["checks"][0].keys()


def test_a_finished_trial_is_not_measured_again_and_another_is_refused(
    shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[bytes] = []

    def measure(examination: Any) -> PromptMeasurements:
        calls.append(examination.key)
        return measurements()

    monkeypatch.setattr(step, "examine", measure)
    assert main(arguments(shelf, tmp_path, policy=None)) == 0
    first = everything(tmp_path / "out")
    assert main(arguments(shelf, tmp_path, policy=None)) == 0
    assert (everything(tmp_path / "out"), len(calls)) == (first, 1)
    for changes in ({}, {"policy": None, "erased": shelf / "base"}):
        assert main(arguments(shelf, tmp_path, **changes)) == 2
        assert "measurements of other inputs" in capsys.readouterr().err
    (tmp_path / "out/measurements.json").unlink()
    assert main(arguments(shelf, tmp_path, policy=None)) == 0
    assert calls == [calls[0]] * 2, "a killed command goes on with its key"
    assert main(arguments(shelf, tmp_path, policy=None, out=tmp_path / "other")) == 0
    assert calls[2] != calls[0], "control: another folder has another key"


def spoil(name: str, text: str) -> Callable[[Path, Path], dict[str, object]]:
    def change(shelf: Path, tmp_path: Path) -> dict[str, object]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
        return {}

    return change


def other_policy(**changes: Any) -> Callable[[Path, Path], dict[str, object]]:
    def change(shelf: Path, tmp_path: Path) -> dict[str, object]:
        write_documents(tmp_path, policy=changes)
        return {}

    return change


def tampered(shelf: Path, tmp_path: Path) -> dict[str, object]:
    shutil.copytree(shelf / "erased", tmp_path / "erased")
    weights = state(tmp_path / "erased")
    save_file({name: value * 2 for name, value in weights.items()}, tmp_path / "erased" / WEIGHTS, {"format": "pt"})
    return {"erased": tmp_path / "erased"}


def pickled(shelf: Path, tmp_path: Path) -> dict[str, object]:
    shutil.copytree(shelf / "clip", tmp_path / "clip")
    (tmp_path / "clip/pytorch_model.bin").write_bytes(pickle.dumps({}))
    return {"detector": tmp_path / "clip"}


def small(shelf: Path, tmp_path: Path) -> dict[str, object]:
    shutil.copytree(shelf / "base", tmp_path / "small")
    config = json.loads((tmp_path / "small/unet/config.json").read_text()) | {"sample_size": 4}
    (tmp_path / "small/unet/config.json").write_text(json.dumps(config))
    return {"erased": tmp_path / "small"}


def few(shelf: Path, tmp_path: Path) -> dict[str, object]:
    return {"images": write_images(tmp_path / "few", [RED], each=1)}


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda shelf, tmp_path: {"base": tmp_path / "none"}, "--base"),
        (lambda shelf, tmp_path: {"erased": tmp_path / "none"}, "--erased"),
        (lambda shelf, tmp_path: {"detector": tmp_path / "none"}, "--detector"),
        (lambda shelf, tmp_path: {"images": tmp_path / "none"}, "--images"),
        (lambda shelf, tmp_path: {"prompts": tmp_path / "none.yaml"}, "file of prompts"),
        (lambda shelf, tmp_path: {"policy": ROOT / "policies/class-conditional.yaml"}, "policy"),
        (lambda shelf, tmp_path: {"detector": shelf / "base"}, "CLIPModel"),
        (lambda shelf, tmp_path: {"base": shelf / "clip"}, "model_index.json"),
        (lambda shelf, tmp_path: {"device": "tpu"}, "tpu"),
        (lambda shelf, tmp_path: {"out": shelf / "erased/out"}, "another --out"),
        (lambda shelf, tmp_path: {"out": tmp_path / "policy.yaml"}, "is a file"),
        (spoil("out/holiday.txt", "x"), "holiday.txt"),
        (spoil("out/evaluation.key", "not a key"), "not a key"),
        (spoil("out/measurements.json", "{"), "not JSON"),
        (spoil("prompts.yaml", "concept: [{prompt: a secret name}]"), "concept"),
        (other_policy(forget={"prompts": 3, "seeds": 2, "max_upper": 0.1}), "too few"),
        (other_policy(detector={"kind": "nudenet", "threshold": 0.45}), "erasediff[nudenet]"),
        (tampered, "erase again"),
        (pickled, "a pickle"),
        (small, "different sizes"),
        (few, "add some"),
    ],
)
def test_a_mistake_ends_with_one_sentence(
    shelf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, change: Any, word: str
) -> None:
    monkeypatch.setattr(step, "examine", lambda examination: pytest.fail("it was measured"))
    monkeypatch.setitem(sys.modules, "nudenet", None)
    write_documents(tmp_path)
    command = arguments(shelf, tmp_path, **change(shelf, tmp_path))
    assert main(command) == 2
    sentence = capsys.readouterr().err.strip()
    assert word in sentence
    assert "secret" not in sentence
    assert sentence.startswith("erasediff: ")
    assert sentence.count("\n") == 0
    assert not (tmp_path / "out/verdict.json").exists()
