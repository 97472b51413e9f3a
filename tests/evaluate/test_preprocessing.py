"""The lie: 'DINOv2's features', of images that it was never meant to see: not resized, not normalised, channels by another name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from erasediff.errors import BadInput
from erasediff.evaluate.features.preprocessing import read_preprocessing
from tests.pretrained import CLIP, VIT


def written(tmp_path: Path, settings: Any) -> Path:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    return tmp_path


def pictures(height: int, width: int, channels: int = 3, n: int = 4) -> Tensor:
    """Smooth colours with edges: noise alone would hide which kernel it was."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (n, 5, 7, channels), dtype=np.uint8)
    drawn = [Image.fromarray(c.squeeze(-1) if channels == 1 else c).resize((width, height), Image.Resampling.BILINEAR) for c in coarse]
    images = np.stack([np.asarray(d).reshape(height, width, channels) for d in drawn]).copy()
    images[:, height // 3 : height // 2, : width // 2] = 255
    return torch.from_numpy(images)


def levels(pixels: Tensor, wanted: Tensor, settings: dict[str, Any]) -> Tensor:
    """How far apart two results are, in levels of 0 to 255."""
    return (pixels - wanted).abs() * torch.tensor(settings["image_std"]).view(3, 1, 1) * 255


@pytest.mark.parametrize(("settings", "processor"), [(VIT, "ViTImageProcessorPil"), (CLIP, "CLIPImageProcessorPil")])
@pytest.mark.parametrize(("height", "width"), [(64, 64), (20, 20), (40, 64), (64, 40)])
def test_pixels_are_those_of_transformers_own_processor(tmp_path: Path, settings: dict[str, Any], processor: str, height: int, width: int) -> None:
    """To one level of 255, where Pillow's weights of whole numbers round the other way."""
    import transformers

    folder, images = written(tmp_path, settings), pictures(height, width)
    wanted = getattr(transformers, processor).from_pretrained(folder, local_files_only=True)([i.numpy() for i in images], return_tensors="pt")
    found = read_preprocessing(folder)(images)
    assert found.shape == wanted["pixel_values"].shape
    apart = levels(found, wanted["pixel_values"], settings)
    assert apart.max() < 1.01
    assert apart.mean() < 0.15


def test_control_without_antialiasing_it_shows(tmp_path: Path) -> None:
    images = pictures(64, 64)
    plain = torch.nn.functional.interpolate(images.permute(0, 3, 1, 2).float(), (28, 28), mode="bilinear", antialias=False)
    mean, std = (torch.tensor(VIT[name]).view(3, 1, 1) for name in ("image_mean", "image_std"))
    apart = levels(read_preprocessing(written(tmp_path, VIT))(images), (plain / 255 - mean) / std, VIT)
    assert apart.max() > 30
    assert apart.mean() > 1


def test_a_grey_image_is_its_own_red_green_and_blue(tmp_path: Path) -> None:
    grey, prepare = pictures(28, 28, 1), read_preprocessing(written(tmp_path, VIT))
    assert torch.equal(prepare(grey), prepare(grey.repeat(1, 1, 1, 3)))
    colours = prepare(pictures(28, 28))
    assert not torch.equal(colours, prepare(pictures(28, 28).flip(3))), "control: the order of channels matters"


def test_an_image_of_the_right_size_is_only_scaled(tmp_path: Path) -> None:
    images = pictures(28, 28)
    wanted = (images.permute(0, 3, 1, 2) / 255 - torch.tensor(VIT["image_mean"]).view(3, 1, 1)) / torch.tensor(VIT["image_std"]).view(3, 1, 1)
    assert torch.allclose(read_preprocessing(written(tmp_path, VIT))(images), wanted, atol=1e-5)


@pytest.mark.parametrize(("size", "side"), [(20, 20), ({"height": 12, "width": 16}, None), ({"shortest_edge": 14}, 14)])
def test_sizes_are_read_as_they_are_written(tmp_path: Path, size: Any, side: int | None) -> None:
    """Older files give one number."""
    found = read_preprocessing(written(tmp_path, VIT | {"size": size}))(pictures(28, 28))
    assert found.shape[2:] == ((side, side) if side else (12, 16))


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"do_flip_channel_order": True}, "do_flip_channel_order"),
        ({"do_pad": True}, "do_pad"),
        ({"crop_pct": 0.875}, "crop_pct"),
        ({"size": None}, "'size'"),
        ({"size": {"longest_edge": 224}}, "'size'"),
        ({"size": {"height": 0, "width": 1}}, "'size'"),
        ({"size": {"height": 10**9, "width": 10**9}}, "'size'"),
        ({"do_center_crop": True}, "'crop_size'"),
        ({"do_center_crop": True, "crop_size": 64}, "cuts out more"),
        ({"do_center_crop": True, "crop_size": 8, "do_resize": False}, "cuts out more"),
        ({"resample": 0}, "resample 0"),
        ({"image_mean": None}, "'image_mean'"),
        ({"image_mean": [0.5]}, "'image_mean'"),
        ({"image_std": [0.5, 0.0, 0.5]}, "'image_std'"),
        ({"rescale_factor": float("nan")}, "'rescale_factor'"),
    ],
)
def test_settings_that_would_be_passed_over_are_refused(tmp_path: Path, settings: dict[str, Any], named: str) -> None:
    with pytest.raises(BadInput, match=r"^[^\n]+\.$") as error:
        read_preprocessing(written(tmp_path, VIT | settings))
    assert named in str(error.value)
    read_preprocessing(written(tmp_path, VIT | {"do_pad": False, "surprise": 1}))  # control


@pytest.mark.parametrize("text", ["[]", "{", "[" * 100_000])
def test_what_is_no_json_object_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "preprocessor_config.json").write_text(text)
    with pytest.raises(BadInput, match=r"preprocessor_config\.json is not"):
        read_preprocessing(tmp_path)
