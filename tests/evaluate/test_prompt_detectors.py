"""The lies: 'this is what CLIP says', 'more synonyms make more detections', 'it was there on the disk', of who judges images of prompts."""

from __future__ import annotations

import pickle
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from erasediff.errors import BadInput
from erasediff.evaluate.prompts.detectors import EXPOSED, Clip, NudeNet, ZeroShot, load_clip
from tests.stable_diffusion import BLUE, CAT, GREEN, RED, images_of
from tests.tiny_clip import write_clip

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "clip")


@pytest.fixture(scope="module")
def clip(saved: Path) -> Clip:
    return load_clip(saved, CPU)


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(saved, tmp_path / "clip"))


IMAGES, SAID = images_of([RED, BLUE, GREEN, CAT], 10)


def test_probabilities_and_scores_are_those_of_transformers(saved: Path, clip: Clip) -> None:
    """40 images, more than one batch holds."""
    from transformers import CLIPModel, CLIPProcessor

    model, processor = CLIPModel.from_pretrained(saved).eval(), CLIPProcessor.from_pretrained(saved)
    texts = [RED, BLUE]
    inputs = processor(text=texts, images=[Image.fromarray(image.numpy()) for image in IMAGES], return_tensors="pt", padding=True)
    with torch.no_grad():
        wanted = model(**inputs).logits_per_image
    found = ZeroShot.of(clip, [RED], [BLUE], 0.5).probability(IMAGES)
    torch.testing.assert_close(found, wanted.softmax(1)[:, 0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(clip.scores(IMAGES, [RED] * 40), wanted[:, 0] / model.logit_scale.exp(), rtol=1e-4, atol=1e-5)
    assert found.std() > 1e-3, "control: images matter"
    assert not torch.allclose(*(clip.of_texts([said]) for said in texts)), "control: texts matter"


def test_the_longer_list_has_no_advantage(clip: Clip) -> None:
    """A detector of fifty prompts against one anchor would otherwise begin at 98 %."""
    once = ZeroShot.of(clip, [RED], [BLUE], 0.5).probability(IMAGES)
    torch.testing.assert_close(ZeroShot.of(clip, [RED] * 50, [BLUE], 0.5).probability(IMAGES), once, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ZeroShot.of(clip, [BLUE], [RED], 0.5).probability(IMAGES), 1 - once, rtol=1e-4, atol=1e-5)


def test_the_threshold_and_every_text_are_in_the_digest(clip: Clip) -> None:
    first = ZeroShot.of(clip, [RED], [BLUE], 0.5)
    assert first.sha256 == ZeroShot.of(clip, [RED], [BLUE], 0.5).sha256
    others = [ZeroShot.of(clip, [RED], [BLUE], 0.6), ZeroShot.of(clip, [RED], [GREEN], 0.5), ZeroShot.of(clip, [BLUE], [RED], 0.5)]
    assert len({first.sha256, *(other.sha256 for other in others)}) == 4
    middle = float(first.probability(IMAGES).median())
    assert ZeroShot.of(clip, [RED], [BLUE], middle).shows(IMAGES).sum() == 20


def test_what_cannot_be_trusted_is_not_loaded(folder: Path) -> None:
    load_clip(folder, CPU)  # control
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({}))
    with pytest.raises(BadInput, match="a pickle"):
        load_clip(folder, CPU)
    (folder / "pytorch_model.bin").unlink()
    weights = load_file(folder / "model.safetensors")
    save_file({k: v for k, v in weights.items() if k != "visual_projection.weight"}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(BadInput, match="visual_projection"):
        load_clip(folder, CPU)
    save_file(weights | {"text_projection.weight": weights["text_projection.weight"] * torch.nan}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(BadInput, match="not finite"):
        load_clip(folder, CPU).of_texts([RED])


@pytest.mark.parametrize("names", [("config.json",), ("model.safetensors",), ("vocab.json", "tokenizer.json"), ("processor_config.json",)])
def test_a_folder_that_lacks_something_is_refused(folder: Path, names: tuple[str, ...]) -> None:
    for name in names:
        (folder / name).unlink(missing_ok=True)
    with pytest.raises(BadInput, match="hand in"):
        load_clip(folder, CPU)


def test_nothing_is_fetched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A name that a hub knows is a folder that does not exist."""
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("the network was asked"))
    with pytest.raises(BadInput, match="does not exist"):
        load_clip(Path("openai/clip-vit-base-patch32"), CPU)


def test_nudenet_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nudenet", None)
    with pytest.raises(BadInput, match=r"erasediff\[nudenet\]"):
        NudeNet.load(0.45)


def test_nudenet_is_asked_for_five_classes_from_a_score_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A stand-in with the package's interface: it reads the colour of the image it is handed."""
    import io

    class Detector:
        def detect(self, image: bytes) -> list[dict[str, Any]]:
            red, score, _ = np.asarray(Image.open(io.BytesIO(image)))[0, 0]
            kind = [*sorted(EXPOSED), "FACE_FEMALE"][red]
            return [{"class": "FEET_EXPOSED", "score": 1.0}, {"class": kind, "score": score / 100}]

    (tmp_path / "320n.onnx").write_bytes(b"graph")
    monkeypatch.setitem(sys.modules, "nudenet", SimpleNamespace(__file__=str(tmp_path / "__init__.py"), NudeDetector=Detector))
    detector = NudeNet.load(0.45)
    images = torch.tensor([[kind, score, 0] for kind in range(6) for score in (44, 45)], dtype=torch.uint8).view(12, 1, 1, 3).repeat(1, 2, 2, 1)
    assert detector.shows(images).tolist() == [False, True] * 5 + [False, False]
    (tmp_path / "320n.onnx").write_bytes(b"another graph")
    assert NudeNet.load(0.45).sha256 != detector.sha256
