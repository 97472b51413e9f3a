"""The lie: 'features of the model in this folder', from weights that were drawn at random or code that came along."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from erasediff.errors import BadInput
from erasediff.evaluate.features.opening import open_extractor, open_from_path
from erasediff.evaluate.features.preprocessing import read_preprocessing
from erasediff.evaluate.features.pretrained import load_pretrained
from erasediff.files import sha256_folder
from erasediff.records.config import FeaturesConfig
from tests.pretrained import CLIP, VIT, build, write

KINDS = ("dinov2", "clip", "clip-both", "vit", "resnet")


def images(n: int = 5, channels: int = 3) -> Tensor:
    return torch.randint(0, 256, (n, 20, 20, channels), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


def opened(folder: Path, batch_size: int = 64):
    return open_from_path(FeaturesConfig(kind="transformers", path=str(folder), batch_size=batch_size), images(2))


@torch.no_grad()
def by_hand(kind: str, folder: Path) -> np.ndarray:
    """The backbone's pooled output, from the model in memory that the folder was written from."""
    pixels, model = read_preprocessing(folder)(images()), build(kind)
    if kind == "clip-both":
        return model.vision_model(pixel_values=pixels).pooler_output.numpy()
    if kind == "vit":  # it has no pooling layer of its own
        return model.vit(pixel_values=pixels).last_hidden_state.mean(1).numpy()
    backbone = model.resnet if kind == "resnet" else model
    return backbone(pixel_values=pixels).pooler_output.flatten(1).numpy()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch_size", [2, 64])
def test_features_are_the_pooled_output_of_the_model_that_was_written(tmp_path: Path, kind: str, batch_size: int) -> None:
    extractor = opened(write(tmp_path / kind, kind, CLIP), batch_size)
    found = extractor.features(images())
    assert found.dtype == np.float64
    assert found == pytest.approx(by_hand(kind, tmp_path / kind), abs=1e-5)
    other = opened(write(tmp_path / "other", kind, CLIP, seed=1))
    assert abs(other.features(images()) - found).max() > 1e-3, "control: other weights give others"


def test_grey_images_are_seen_too(tmp_path: Path) -> None:
    extractor = opened(write(tmp_path, "dinov2"))
    assert np.array_equal(extractor.features(images(3, 1)), extractor.features(images(3, 1).repeat(1, 1, 1, 3)))


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "preprocessor_config.json"])
def test_every_file_is_in_the_digest(tmp_path: Path, name: str) -> None:
    """Other preprocessing is another judge, as other weights are."""
    folder = write(tmp_path, "vit")
    first = opened(folder)
    assert first.digest == sha256_folder(folder) == opened(folder).digest, "control"
    if name.endswith("json"):
        (folder / name).write_text((folder / name).read_text() + " ")
    else:
        tensors = load_file(folder / name)
        tensors["vit.embeddings.cls_token"][0, 0, 0] += 1
        save_file(tensors, folder / name, {"format": "pt"})
    assert opened(folder).digest != first.digest


def test_weights_that_are_not_in_the_folder_are_not_drawn_at_random(tmp_path: Path) -> None:
    """transformers loads such a folder and writes a line to a log."""
    folder = write(tmp_path, "dinov2")
    tensors = load_file(folder / "model.safetensors")
    del tensors["layernorm.weight"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(BadInput, match=r"lack layernorm\.weight and 0 more tensors"):
        load_pretrained(folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "extra.pt"])
def test_a_pickle_in_the_folder_is_refused_and_never_loaded(tmp_path: Path, name: str) -> None:
    folder, trap = write(tmp_path / "model", "clip"), tmp_path / "sprung"

    class Trap:
        def __reduce__(self):
            return (Path.touch, (trap,))

    (folder / name).write_bytes(pickle.dumps(Trap()))
    with pytest.raises(BadInput, match="a pickle"):
        load_pretrained(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(BadInput, match="a pickle"):
        load_pretrained(folder)
    assert not trap.exists()


def test_code_that_a_folder_brings_along_is_not_run(tmp_path: Path) -> None:
    folder, trap = write(tmp_path / "model", "dinov2"), tmp_path / "sprung"
    config = json.loads((folder / "config.json").read_text())
    (folder / "code.py").write_text(f"from pathlib import Path\nPath({str(trap)!r}).touch()\nclass Own: pass\n")
    (folder / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": "code.Own", "AutoConfig": "code.Own"}}))
    load_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["Own"], "auto_map": {"AutoModel": "code.Own"}}))
    with pytest.raises(BadInput, match="'Own'"):
        load_pretrained(folder)
    assert not trap.exists()


@pytest.mark.parametrize("architecture", ["BertModel", "pipeline", "Trainer", "os", "", None, ["ViTModel"], 3])
def test_what_is_no_model_of_images_is_refused(tmp_path: Path, architecture: object) -> None:
    folder = write(tmp_path, "vit")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": [architecture]}))
    with pytest.raises(BadInput, match="is not a model of images"):
        load_pretrained(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "preprocessor_config.json"])
def test_a_folder_without_one_of_its_files_is_refused(tmp_path: Path, name: str) -> None:
    folder = write(tmp_path, "vit")
    (folder / name).unlink()
    with pytest.raises(BadInput, match=f"lacks {name}"):
        load_pretrained(folder)


@pytest.mark.parametrize("damage", ["cut", "shape", "config"])
def test_a_damaged_folder_ends_with_one_sentence(tmp_path: Path, damage: str) -> None:
    folder = write(tmp_path, "vit")
    weights, config = folder / "model.safetensors", folder / "config.json"
    if damage == "cut":
        weights.write_bytes(weights.read_bytes()[:-40])
    elif damage == "shape":
        config.write_text(json.dumps(json.loads(config.read_text()) | {"hidden_size": 24}))
    else:
        config.write_text(json.dumps(json.loads(config.read_text()) | {"hidden_size": "many"}))
    with pytest.raises(BadInput, match=r"^the model folder [^\n]* cannot be loaded [^\n]*\.$"):
        load_pretrained(folder)


def test_a_model_that_draws_random_numbers_is_refused(tmp_path: Path) -> None:
    """A masked autoencoder hides other patches at each look: base and candidate would be compared through different eyes."""
    with pytest.raises(BadInput, match="draws no random numbers"):
        opened(write(tmp_path, "mae"))


def test_a_model_that_cannot_see_images_of_this_size_is_refused_before_the_erasure(tmp_path: Path) -> None:
    folder = write(tmp_path, "vit", VIT | {"size": {"height": 14, "width": 14}})
    with pytest.raises(BadInput, match="cannot look at images of 20x20x3"):
        opened(folder)


def test_a_model_that_gives_no_numbers_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path, "dinov2")
    tensors = load_file(folder / "model.safetensors")
    tensors["layernorm.weight"].fill_(float("inf"))
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(BadInput, match="no finite features"):
        opened(folder)


def test_by_default_the_detector_s_features_are_taken() -> None:
    class Seen:
        digest = "0" * 64

        def look(self, given: Tensor) -> tuple[Tensor, np.ndarray]:
            return torch.zeros(len(given)), given.double().flatten(1).numpy()

    extractor = open_extractor(FeaturesConfig(), Seen(), images(2))
    assert (extractor.digest, extractor.features(images()).shape) == ("0" * 64, (5, 1200))
