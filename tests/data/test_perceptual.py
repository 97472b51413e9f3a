"""The lie: 'a perceptual hash', of numbers that no other implementation gives."""

from __future__ import annotations

import numpy as np
import pytest
from imagehash import phash
from PIL import Image
from sklearn.datasets import load_sample_images

from erasediff.data.perceptual import LEAST_SIDE, perceptual_hashes


def tiles(side: int) -> np.ndarray:
    """Pieces of two photographs."""
    return np.array(
        [
            photograph[top : top + side, left : left + side]
            for photograph in load_sample_images().images
            for top in range(0, photograph.shape[0] - side, side)
            for left in range(0, photograph.shape[1] - side, side)
        ]
    )


def reference(images: np.ndarray) -> np.ndarray:
    pictures = (Image.fromarray(image[..., 0] if image.shape[2] == 1 else image) for image in images)
    return np.array([phash(picture).hash.ravel() for picture in pictures])


def differing(images: np.ndarray) -> np.ndarray:
    """How many bits differ from the library's, of pictures with some contrast: in others rounding decides."""
    images = images[images.reshape(len(images), -1).std(axis=1) > 8]
    ours = np.unpackbits(perceptual_hashes(images)[0].view(np.uint8).reshape(-1, 8), axis=1).astype(bool)
    return (ours != reference(images)).sum(axis=1)


def test_pictures_of_32_pixels_have_the_hash_of_imagehash() -> None:
    grey = np.asarray(tiles(32).mean(axis=3, keepdims=True), dtype=np.uint8)
    assert (differing(grey) == 0).mean() > 0.99
    assert differing(grey).max() <= 2
    assert (differing(np.roll(grey, 1, axis=2)) == 0).mean() > 0.99
    shifted = perceptual_hashes(np.roll(grey, 1, axis=2))[0]
    assert (np.bitwise_count(shifted ^ perceptual_hashes(grey)[0]) > 2).mean() > 0.9, "control: another picture has another hash"


@pytest.mark.parametrize("side", [LEAST_SIDE, 28, 32, 64])
def test_colours_and_other_sizes_are_as_near_as_rounding_leaves_them(side: int) -> None:
    """The library turns colours into whole levels of grey and enlarges or reduces the picture; both round."""
    bits = differing(tiles(side))
    assert np.median(bits) <= 2
    assert np.percentile(bits, 95) <= 10, "of smooth pieces of sky; two pieces that are not the same differ in 32"


def test_a_picture_of_one_grey_has_no_hash() -> None:
    images = np.full((3, 32, 32, 3), 77, dtype=np.uint8)
    images[1, 10:20, 10:20] = 80
    images[2] = 0
    assert perceptual_hashes(images)[1].tolist() == [True, False, True]
