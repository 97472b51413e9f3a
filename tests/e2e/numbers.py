"""A folder of colour images as a user hands one in, and the options of a quick run on it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

QUICK = Path(__file__).parent / "quick"


NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def write_images(folder: Path, names: Sequence[str] = NAMES) -> None:
    """Handwritten digits in colours, named in words."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    folder.mkdir()
    rows = ["file,label"]
    for i, (image, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        grey = (image * 255 / 16).round().astype(np.uint8)
        Image.fromarray(np.stack([grey, grey // 2, 255 - grey], axis=-1)).save(folder / f"{i}.png")
        rows.append(f"{i}.png,{names[label]}")
    (folder / "labels.csv").write_text("\n".join(rows))


def asking(name: str, workdir: Path) -> list[object]:
    """The options of a quick run that forgets the class of this name; the images lie beside the workdir."""
    dataset = f"folder:{workdir.parent / 'numbers'}"
    return ["--config", QUICK / "config.yaml", "--policy", QUICK / "policy.yaml", "--dataset", dataset, "--forget-label", name]
