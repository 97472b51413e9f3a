"""The lies: 'it was resumed', 'what was forgotten stays forgotten', 'nothing was written', for an erasure from a text-to-image folder."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from diffusers import StableDiffusionPipeline
from PIL import Image
from torch import Tensor

from erasediff.cli import main
from erasediff.errors import BadInput, IntegrityError
from erasediff.models.concepts import CONDITIONS, RECORD, read_forgotten, same_rows
from erasediff.models.families.stable_diffusion import StableDiffusion
from erasediff.models.layout import WEIGHTS
from erasediff.models.noised import NoisedBatch
from erasediff.records.concept import ConceptConfig, ConceptErasure
from erasediff.steps.erase_concept import erase_concept
from erasediff.unlearn.workbench import Workbench
from tests.counting import Calls
from tests.stable_diffusion import BLUE, CAT, GREEN, RED, SIZE, state, write_images, write_model

SETTINGS = {"steps": 3, "batch_size": 8, "learning_rate": 1e-2}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("sd") / "base")


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Folders of images: `red`, `cat`, `both` to forget; `keep` and `keep-more` to retain."""
    write_images(tmp_path / "red", [RED])
    write_images(tmp_path / "cat", [CAT])
    write_images(tmp_path / "both", [RED, CAT])
    write_images(tmp_path / "keep", [BLUE, GREEN])
    write_images(tmp_path / "keep-more", [BLUE, GREEN, CAT])
    return tmp_path


def config_of(model: Path, forget: Path, retain: Path, changes: dict[str, object] | None = None, **erase: object) -> ConceptConfig:
    document = {"model": str(model), "forget": str(forget), "retain": str(retain), "device": "cpu", "erase": SETTINGS | erase}
    return ConceptConfig.model_validate(document | (changes or {}))


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name not in ("red", "cat", "both", "keep", "keep-more"))


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@contextmanager
def visited(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[NoisedBatch]]:
    """The forget batches of the runs inside."""
    batches: list[NoisedBatch] = []
    original = Workbench.visited_batch

    def spy(self: Workbench, *arguments: object) -> NoisedBatch:
        batches.append(original(self, *arguments))
        return batches[-1]

    with monkeypatch.context() as patch:
        patch.setattr(Workbench, "visited_batch", spy)
        yield batches


def test_an_erased_folder_is_a_plain_diffusers_folder_that_draws(base: Path, folders: Path) -> None:
    """Several concepts at once; only cross-attention weights differ, and everything else is the base's to the byte."""
    record = erase_concept(config_of(base, folders / "both", folders / "keep"), folders / "out")
    before, after = state(base), state(folders / "out")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if ".attn2." in name}
    for path in base.rglob("*"):
        name = path.relative_to(base)
        if path.is_file() and name != WEIGHTS:
            assert (folders / "out" / name).read_bytes() == path.read_bytes()
    assert listing(folders) == ["out"], "no checkpoint and no scratch is left"
    assert len(record.erasures) == 1
    plain = StableDiffusionPipeline.from_pretrained(folders / "out", local_files_only=True)
    plain.set_progress_bar_config(disable=True)
    picture = plain(RED, num_inference_steps=2, generator=torch.Generator().manual_seed(0), output_type="np").images
    assert picture.shape == (1, SIZE, SIZE, 3)
    assert np.isfinite(picture).all()


def test_prompts_and_images_are_encoded_once_and_not_each_step(base: Path, folders: Path) -> None:
    """Five prompts in one batch, 8 + 8 images in two, however many steps are made."""
    counts = []
    for steps in (1, 6):
        calls = Calls()
        with calls.counted():
            erase_concept(config_of(base, folders / "both", folders / "keep", steps=steps), folders / f"out-{steps}")
        counts.append((calls.text, calls.image))
    assert counts == [(1, 2), (1, 2)]


def test_the_same_erasure_again_does_nothing_and_another_is_refused(base: Path, folders: Path) -> None:
    config = config_of(base, folders / "red", folders / "keep")
    record = erase_concept(config, folders / "out")
    stamp = (folders / "out").stat().st_mtime_ns
    assert erase_concept(config, folders / "out") == record
    assert (folders / "out").stat().st_mtime_ns == stamp
    with pytest.raises(BadInput, match="another erasure"):
        erase_concept(config_of(base, folders / "red", folders / "keep", steps=4), folders / "out")
    again = erase_concept(config, folders / "again")
    assert again == record, "a run is a function of its key"
    assert erase_concept(config_of(base, folders / "red", folders / "keep", {"seed": 1}), folders / "third") != record, "control"
    (folders / "out" / WEIGHTS).write_bytes(b"")
    with pytest.raises(IntegrityError, match="not the ones"):
        erase_concept(config, folders / "out")


@pytest.mark.parametrize("what", ["model", "forget", "retain"])
def test_a_run_is_known_by_the_content_of_its_folders(base: Path, folders: Path, what: str) -> None:
    """Not by their names: a moved folder is the same run, a changed one is another."""
    paths = {"model": Path(shutil.copytree(base, folders / "model")), "forget": folders / "red", "retain": folders / "keep"}
    record = erase_concept(config_of(*paths.values(), steps=1), folders / "out")
    moved = paths | {what: paths[what].rename(folders / "moved")}
    assert erase_concept(config_of(*moved.values(), steps=1), folders / "out") == record
    (folders / "moved/note.txt").write_text("x")
    with pytest.raises(BadInput, match="another erasure"):
        erase_concept(config_of(*moved.values(), steps=1), folders / "out")


def test_what_was_forgotten_before_stays_a_forget_condition(base: Path, folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second erasure sees neither the first prompt nor its images, but its row is in the forget batches, on retain images."""
    first = erase_concept(config_of(base, folders / "red", folders / "keep"), folders / "one")
    shutil.rmtree(folders / "red")
    with visited(monkeypatch) as batches:
        second = erase_concept(config_of(folders / "one", folders / "cat", folders / "keep"), folders / "two")
    # rows: the empty prompt, the cat, blue and green, and what was forgotten before
    assert {int(label) for batch in batches for label in batch.labels} == {1, 4}
    assert second.erasures[:-1] == first.erasures
    found = read_forgotten(folders / "two")
    assert found is not None
    wanted = StableDiffusion.load(base).encode_prompts([RED, CAT])
    assert same_rows(found.embeddings, wanted).equal(torch.eye(2, dtype=torch.bool))
    with visited(monkeypatch) as batches:
        erase_concept(config_of(base, folders / "cat", folders / "keep"), folders / "control")
    assert {int(label) for batch in batches for label in batch.labels} == {1}, "control: from the base nothing is earlier"
    third = erase_concept(config_of(folders / "two", write_images(folders / "red", [RED]), folders / "keep"), folders / "three")
    assert len(third.erasures) == 3
    again = read_forgotten(folders / "three")
    assert again is not None
    assert len(again.embeddings) == 2, "a prompt forgotten twice is one condition"


def test_what_was_forgotten_before_is_not_brought_back(base: Path, folders: Path) -> None:
    erase_concept(config_of(base, folders / "cat", folders / "keep"), folders / "one")
    before = listing(folders)
    with pytest.raises(BadInput, match=r"keep-more holds 1 of the 1 prompts that an earlier erasure forgot.*\.$") as error:
        erase_concept(config_of(folders / "one", folders / "red", folders / "keep-more"), folders / "two")
    assert "a cat" not in str(error.value), "a prompt may name a person"
    with pytest.raises(BadInput, match=r"visited_share of 2 or more\.$"):
        erase_concept(config_of(folders / "one", folders / "red", folders / "keep", batch_size=2), folders / "two")
    with pytest.raises(BadInput, match=r"'finetune' does not keep earlier erasures forgotten"):
        erase_concept(config_of(folders / "one", folders / "red", folders / "keep", method="finetune"), folders / "two")
    (folders / "one" / CONDITIONS).unlink()
    with pytest.raises(BadInput, match="not its second file"):
        erase_concept(config_of(folders / "one", folders / "red", folders / "keep"), folders / "two")
    assert listing(folders) == before


def test_the_record_names_no_prompt(base: Path, folders: Path) -> None:
    erase_concept(config_of(base, folders / "red", folders / "keep"), folders / "out")
    for path in (folders / "out").iterdir():
        if path.is_file():
            assert RED.encode() not in path.read_bytes()
    assert set(json.loads((folders / "out" / RECORD).read_text())) == set(ConceptErasure.model_fields)
    assert RED in (folders / "red/labels.csv").read_text(), "control: the prompt is that"


def command(folders: Path, config: ConceptConfig, out: Path, watched: Path) -> subprocess.Popen[str]:
    path = folders / "config.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    arguments = [sys.executable, "-m", "erasediff", "erase-concept", "--config", str(path), "--out", str(out)]
    environment = os.environ | {"ERASEDIFF_PROGRESS": str(watched)}
    return subprocess.Popen(arguments, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.mark.faults
def test_a_killed_command_is_completed_by_the_same_command(base: Path, folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGKILL once there is a checkpoint; the erased weights are those of an unbroken run, bit for bit."""
    config = config_of(base, folders / "both", folders / "keep", steps=40, checkpoint_every=5)
    checkpoint = folders / ".out.checkpoint.safetensors"
    with command(folders, config, folders / "out", folders / "progress") as killed:
        while not checkpoint.exists() and killed.poll() is None:
            time.sleep(0.02)
        killed.kill()
    assert killed.returncode == -signal.SIGKILL
    assert checkpoint.is_file()
    assert not (folders / "out").exists(), "half-written output is never visible"
    with pytest.raises(IntegrityError, match="belongs to another run"):
        erase_concept(config_of(base, folders / "red", folders / "keep"), folders / "out")
    with visited(monkeypatch) as batches:
        resumed = erase_concept(config, folders / "out")
    assert len(batches) <= 35, "it went on from the checkpoint and not from the beginning"
    assert resumed == erase_concept(config, folders / "unbroken")
    assert same(state(folders / "out"), state(folders / "unbroken"))
    assert not same(state(folders / "out"), state(base)), "control"


def test_a_run_broken_and_resumed_is_the_unbroken_run(base: Path, folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of(base, folders / "both", folders / "keep", steps=7, checkpoint_every=2)
    original = Workbench.visited_batch

    def broken(self: Workbench, *arguments: object) -> NoisedBatch:
        if self.step == 5:
            raise KeyboardInterrupt
        return original(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Workbench, "visited_batch", broken)
        with pytest.raises(KeyboardInterrupt):
            erase_concept(config, folders / "out")
    assert listing(folders) == [".out.checkpoint.safetensors"]
    with visited(monkeypatch) as batches:
        resumed = erase_concept(config, folders / "out")
    assert len(batches) == 3
    assert resumed == erase_concept(config, folders / "unbroken")
    assert same(state(folders / "out"), state(folders / "unbroken"))
    assert not same(state(folders / "out"), state(base)), "control"
    assert listing(folders) == ["out", "unbroken"], "the checkpoint is removed"


def test_a_disk_that_fills_up_leaves_nothing_visible(base: Path, folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("erasediff.models.concepts.save_file", full)
        with pytest.raises(BadInput, match="no space is left"):
            erase_concept(config_of(base, folders / "red", folders / "keep"), folders / "out")
    assert listing(folders) == []


def lines(folder: Path, *rows: str) -> None:
    (folder / "labels.csv").write_text("\n".join(["file,label", *rows]) + "\n")


def wrong_size(folders: Path) -> None:
    for path in (folders / "red").glob("*.png"):
        Image.new("RGB", (SIZE * 2, SIZE)).save(path)


def no_images(folders: Path) -> None:
    for path in (folders / "red").glob("*.png"):
        path.unlink()
    lines(folders / "red")


def also_retained(folders: Path) -> None:
    """Another spelling, which is the same prompt to the tokenizer."""
    text = (folders / "red/labels.csv").read_text()
    (folders / "red/labels.csv").write_text(text.replace(RED, BLUE.upper()))


def broken_model(change: Callable[[Path], object]) -> Callable[[Path], None]:
    return lambda folders: (change(folders / "model"), None)[1]


def other_prediction(model: Path) -> None:
    path = model / "scheduler/scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"_class_name": "DDIMScheduler", "prediction_type": "sample"}))


MISTAKES: dict[str, tuple[Callable[[Path], None], dict[str, object], str]] = {
    "pickle": (broken_model(lambda m: (m / "unet/x.bin").write_bytes(pickle.dumps(1))), {}, "pickles are never loaded"),
    "missing component": (broken_model(lambda m: shutil.rmtree(m / "vae")), {}, "lacks vae/"),
    "prediction type": (broken_model(other_prediction), {}, "prediction type 'sample'"),
    "no model": (lambda f: shutil.rmtree(f / "model"), {}, "model folder"),
    "no forget folder": (lambda f: shutil.rmtree(f / "red"), {}, "forget folder"),
    "empty folder": (no_images, {}, "holds no images"),
    "empty folder without rows": (lambda f: [p.unlink() for p in (f / "red").iterdir()], {}, "labels.csv"),
    "wrong size": (wrong_size, {}, "32x16 but the model's are 16x16"),
    "forget prompt retained": (also_retained, {}, "holds 1 of the 1 prompts to forget"),
    "forget prompt of nothing": (lambda f: lines(f / "red", *(f"{i:03}.png,<|endoftext|>" for i in range(4))), {}, "empty prompt"),
    "anchor to forget": (lambda f: None, {"anchor_prompt": RED, "erase": SETTINGS | {"target": "anchor"}}, "anchor_prompt is a forgotten prompt"),
    "anchor without target": (lambda f: None, {"anchor_prompt": BLUE}, "anchor_prompt goes with"),
    "target without anchor": (lambda f: None, {"erase": {"target": "anchor"}}, "anchor_prompt goes with"),
    "anchor as a label": (lambda f: None, {"erase": {"anchor": 1}}, "anchor_prompt instead"),
    "proxy": (lambda f: None, {"erase": {"proxy": {}}}, "erase.proxy"),
    "swapped columns": (lambda f: lines(f / "red", *(f"{RED},{i:03}.png" for i in range(4))), {}, "row 2 of"),
    "unknown field": (lambda f: None, {"surprise": 1}, "surprise"),
    "batch of odd parts": (lambda f: None, {"erase": SETTINGS | {"accumulation": 3}}, "does not divide"),
    "out is there": (lambda f: (f / "out").mkdir(), {}, "is there already"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_sentence_and_nothing_is_written(base: Path, folders: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    change, changes, part = MISTAKES[name]
    shutil.copytree(base, folders / "model")
    change(folders)
    document = {"model": str(folders / "model"), "forget": str(folders / "red"), "retain": str(folders / "keep"), "erase": SETTINGS}
    (folders / "config.yaml").write_text(yaml.safe_dump(document | changes))
    before = listing(folders)
    assert main(["erase-concept", "--config", str(folders / "config.yaml"), "--out", str(folders / "out")]) == 2
    sentence = capsys.readouterr().err.strip()
    assert part in sentence
    assert sentence.startswith("erasediff: ")
    assert sentence.count("\n") == 0
    assert RED not in sentence
    assert listing(folders) == before


def test_out_inside_a_folder_that_is_read_is_refused(base: Path, folders: Path) -> None:
    for what in (base, folders / "red", folders / "keep"):
        with pytest.raises(BadInput, match="lies in the"):
            erase_concept(config_of(base, folders / "red", folders / "keep"), what / "out")
        assert not (what / "out").exists()


@pytest.mark.parametrize("prompt", [GREEN, CAT, ""], ids=["retained", "without images", "empty"])
def test_an_anchor_is_aimed_at(base: Path, folders: Path, monkeypatch: pytest.MonkeyPatch, prompt: str) -> None:
    """The teacher is asked under the anchor's row of the table, the last one, whether there are images of it or not."""
    import erasediff.steps.erase_concept as step

    aims: list[Tensor] = []

    class Watched(step.Erasure):
        def __init__(self, *arguments: object, **named: object) -> None:
            super().__init__(*arguments, **named)
            real = self.bench.teacher

            def teacher(noised: Tensor, timesteps: Tensor, labels: Tensor) -> Tensor:
                aims.append(real.prompts(labels))
                return real(noised, timesteps, labels)

            self.bench.teacher = teacher

    monkeypatch.setattr(step, "Erasure", Watched)
    erase_concept(config_of(base, folders / "red", folders / "keep", {"anchor_prompt": prompt}, target="anchor", steps=1), folders / "out")
    wanted = StableDiffusion.load(base).encode_prompts([prompt])
    assert all(torch.allclose(rows, wanted.expand_as(rows), atol=1e-5) for rows in aims)
    assert aims, "control: the teacher was asked"


def test_grey_images_are_taken_as_colour(base: Path, folders: Path) -> None:
    for path in (folders / "red").glob("*.png"):
        Image.open(path).convert("L").save(path)
    assert erase_concept(config_of(base, folders / "red", folders / "keep", steps=1), folders / "out").erasures
