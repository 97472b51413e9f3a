"""The in-domain classifier that measures: trained on held-out real images, never seen by the erase step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from erasediff.errors import IntegrityError
from erasediff.files import atomic_path, sha256_file
from erasediff.models.denoiser import to_unit
from erasediff.progress import progress
from erasediff.records.attacks import Detections
from erasediff.records.config import DetectorConfig, NetworkName
from erasediff.records.measurements import DetectorQuality

FEATURES = 64
_BOTTLENECK = 48
SENSITIVITY_MARGIN = 0.02  # so that the sensitivity holds on images the threshold was not chosen on
_BATCH = 1000


def _block(channels_in: int, channels_out: int, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(channels_out), nn.ReLU())


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block = _block(channels, channels)

    def forward(self, images: Tensor) -> Tensor:
        return images + self.block(images)  # type: ignore[no-any-return]


def _convolutions(network: NetworkName, channels: int) -> list[nn.Module]:
    if network == "plain":
        return [_block(channels, 32), _block(32, 32), nn.MaxPool2d(2), _block(32, FEATURES), _block(FEATURES, FEATURES)]
    halved = [_block(channels, 16), _block(16, 32, stride=2), _Residual(32), _Residual(32)]
    return [*halved, _block(32, FEATURES, stride=2), _Residual(FEATURES), _Residual(FEATURES)]


class ConvolutionalClassifier(nn.Module):
    """A few small convolutions under a narrow classifier: enough for small images.

    Fréchet distances are taken on the last convolution averaged over space, as the usual distance is on Inception's (Heusel
    et al. 2017). The classifier's own bottleneck is no use for it: it keeps what tells classes apart and little of how an
    image looks, and its distance is then mostly sampling noise (docs/gates.md).
    """

    def __init__(self, network: NetworkName, channels: int, classes: int) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(*_convolutions(network, channels))
        self.bottleneck = nn.Sequential(nn.AdaptiveMaxPool2d(2), nn.Flatten(), nn.Dropout(0.3), nn.Linear(4 * FEATURES, _BOTTLENECK), nn.ReLU())
        self.head = nn.Linear(_BOTTLENECK, classes)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits ``[B,classes]`` and features ``[B,64]`` for ``images [B,C,H,W]`` in -1..1."""
        maps = self.convolutions(images)
        return self.head(self.bottleneck(maps)), maps.mean((2, 3))


@dataclass(frozen=True)
class Detector:
    """A classifier with the digest of what it was loaded from.

    ``network`` gives logits ``[B,classes]`` and features ``[B,d]`` of what ``prepare`` makes of ``uint8 [B,H,W,C]``.
    """

    network: nn.Module
    digest: str
    prepare: Callable[[Tensor], Tensor] = to_unit
    batch_size: int = _BATCH

    @torch.no_grad()
    def look(self, images: Tensor) -> tuple[Tensor, NDArray[np.float64]]:
        """Classify.

        Args:
            images: ``uint8 [N,H,W,C]``.

        Returns:
            labels ``int64 [N]`` and features ``float64 [N,d]``.
        """
        parts = list(self._parts(images))
        return torch.cat([logits for logits, _ in parts]).argmax(1), torch.cat([f for _, f in parts]).double().numpy()

    @torch.no_grad()
    def probability(self, images: Tensor, label: int) -> Tensor:
        """p(label | image) ``[N]`` for ``uint8 [N,H,W,C]``, as the classifier sees it."""
        return torch.cat([logits.softmax(1)[:, label] for logits, _ in self._parts(images)])

    @torch.no_grad()
    def labels(self, images: Tensor) -> Tensor:
        """The labels alone, ``int64 [N]`` for ``uint8 [N,H,W,C]``: features of a whole dataset need not be in memory for them."""
        return torch.cat([logits.argmax(1) for logits, _ in self._parts(images)])

    def _parts(self, images: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        return (self.network(self.prepare(batch)) for batch in torch.split(images, self.batch_size))

    def watch_for(self, images: Tensor, labels: Tensor, label: int, sensitivity: float) -> Watch:
        """Set the detector to a class so that it finds at least a ``sensitivity`` of real images of it.

        The most likely class decides; where that alone finds too few, so does a probability above a threshold. The threshold
        is chosen on every second of the images ``uint8 [N,H,W,C]``, none of which it was trained on; the errors are those on
        the others.
        """
        choosing, judging = slice(0, None, 2), slice(1, None, 2)
        own = images[choosing][labels[choosing] == label]
        threshold = None
        if len(own) and float((self.labels(own) == label).double().mean()) < sensitivity:
            wanted = min(1.0, sensitivity + SENSITIVITY_MARGIN)
            threshold = float(self.probability(own, label).quantile(1 - wanted))
        return Watch(self, label, threshold, self.quality(images[judging], labels[judging], label, threshold))

    @torch.no_grad()
    def detects(self, images: Tensor, label: int, threshold: float | None) -> Tensor:
        """Whether each of ``uint8 [N,H,W,C]`` is called the class: ``bool [N]``; see :meth:`watch_for`."""
        found: Tensor = self.labels(images) == label
        return found if threshold is None else found | (self.probability(images, label) >= threshold)

    def quality(self, images: Tensor, labels: Tensor, label: int, threshold: float | None = None) -> DetectorQuality:
        """The detector's own error on real images ``uint8 [N,H,W,C]`` that it was not trained on."""
        accuracy = float((self.labels(images) == labels).double().mean())
        found, positive = self.detects(images, label, threshold), labels == label
        return DetectorQuality(
            sha256=self.digest,
            accuracy=accuracy,
            true_positive_rate=float(found[positive].double().mean()) if positive.any() else 0.0,
            false_positive_rate=float(found[~positive].double().mean()) if (~positive).any() else 1.0,
            holdout_positives=int(positive.sum()),
            holdout_negatives=int((~positive).sum()),
            threshold=threshold,
        )

    def nearest(self, images: Tensor, labels: Tensor, label: int, among: Sequence[int], count: int) -> tuple[int, ...]:
        """The ``count`` of the classes ``among`` whose mean features lie closest to those of ``label``."""
        _, features = self.look(images)
        centre = features[(labels == label).numpy()].mean(0)
        distance = {c: float(np.square(features[(labels == c).numpy()].mean(0) - centre).sum()) for c in among}
        return tuple(sorted(sorted(among, key=lambda c: distance[c])[:count]))


@dataclass(frozen=True)
class Watch:
    """A detector set to one class."""

    detector: Detector
    label: int
    threshold: float | None
    quality: DetectorQuality

    def count(self, images: Tensor) -> Detections:
        """How many of ``uint8 [N,H,W,C]`` are called the class, beside how many real images of other classes are."""
        found = self.detector.detects(images, self.label, self.threshold)
        others = self.quality.holdout_negatives
        return Detections(
            n=len(images),
            detections=int(found.sum()),
            reference_n=others,
            reference_detections=round(self.quality.false_positive_rate * others),
        )


def _augment(images: Tensor, config: DetectorConfig, generator: torch.Generator) -> Tensor:
    """Random rotation, scale, shear, sub-pixel shift and a little noise: generated images are not scans."""

    def uniform(limit: float) -> Tensor:
        return (torch.rand(len(images), generator=generator) * 2 - 1) * limit * config.augmentation

    angle, scale_x, scale_y, shear = uniform(0.2), 1 + uniform(0.12), 1 + uniform(0.12), uniform(0.15)
    if config.flip:
        scale_x = scale_x * torch.where(torch.rand(len(images), generator=generator) < 0.5, -1.0, 1.0)
    upper = torch.stack([angle.cos() * scale_x, -angle.sin() + shear, uniform(0.2)], 1)
    lower = torch.stack([angle.sin(), angle.cos() * scale_y, uniform(0.2)], 1)
    grid = functional.affine_grid(torch.stack([upper, lower], 1), list(images.shape), align_corners=False)
    moved = functional.grid_sample(images + 1, grid, align_corners=False) - 1
    noise = torch.randn(images.shape, generator=generator)
    return moved + 0.1 * torch.rand(len(images), 1, 1, 1, generator=generator) * noise


def train_detector(images: Tensor, labels: Tensor, classes: int, config: DetectorConfig) -> ConvolutionalClassifier:
    """Train on real images.

    Args:
        images: ``uint8 [N,H,W,C]``.
        labels: ``int64 [N]``.
        classes: how many classes there are.
        config: steps, batch size, rate and seed.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = ConvolutionalClassifier(config.network, images.shape[3], classes).train()
        generator = torch.Generator().manual_seed(config.seed)
        pixels = to_unit(images)
        optimizer = torch.optim.AdamW(network.parameters(), lr=config.learning_rate, weight_decay=1e-2, fused=True)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.learning_rate, total_steps=config.steps)
        with progress("training the detector", config.steps) as done:
            for step in range(config.steps):
                picked = torch.randint(0, len(pixels), (config.batch_size,), generator=generator)
                logits, _ = network(_augment(pixels[picked], config, generator))
                loss = functional.cross_entropy(logits, labels[picked], label_smoothing=0.05)
                optimizer.zero_grad(set_to_none=True)
                torch.autograd.backward(loss)
                optimizer.step()
                schedule.step()
                done(step + 1)
    return network.eval()


def stored_detector(path: Path, images: Tensor, labels: Tensor, classes: int, config: DetectorConfig) -> Detector:
    """The detector kept under ``path``, trained and saved there if there is none yet.

    Raises:
        IntegrityError: the file that is there is damaged or holds another network.
    """
    if not path.is_file():
        network = train_detector(images, labels, classes, config)
        with atomic_path(path) as temporary:
            save_file(network.state_dict(), temporary)
    network = ConvolutionalClassifier(config.network, images.shape[3], classes)
    try:
        network.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError):
        raise IntegrityError(f"the detector {path} is damaged or of another dataset: remove it, and it is trained again.") from None
    return Detector(network.eval(), sha256_file(path))
