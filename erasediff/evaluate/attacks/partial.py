"""Start from pictures of the class under partial noise: what is asked for has not to be made, only to be kept."""

from __future__ import annotations

import torch
from torch import Tensor

from erasediff.evaluate.attacks.probe import Probe, Suspect
from erasediff.models.sampler import Start


def partial(suspect: Suspect, images: Tensor, strength: float, n: int) -> Probe:
    """Denoise real images of the class under its label, from a share of the noise (SDEdit, Meng et al. 2108.01073).

    Little noise hides little of an image, so a model without the class keeps some of it as well: what counts is the excess.

    Args:
        suspect: the model.
        images: of the class, ``float32 [M,C,H,W]`` in -1..1, none of which the model was trained on.
        strength: share of the sampler's steps that is added and taken away.
        n: samples; the images are taken in turn.
    """
    chosen = images[torch.arange(n) % len(images)]
    return suspect.probe("partial noise").by(start=Start(chosen, strength))
