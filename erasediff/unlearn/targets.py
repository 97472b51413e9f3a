"""The forget target that a configuration names, for the data at hand."""

from __future__ import annotations

import torch

from erasediff.errors import BadInput
from erasediff.models.denoiser import Denoiser
from erasediff.models.process import NoiseSchedule
from erasediff.records.config import EraseConfig
from erasediff.unlearn import objective
from erasediff.unlearn.mixture import RetainedMixture
from erasediff.unlearn.objective import Target
from erasediff.unlearn.posterior import ClassPosterior
from erasediff.unlearn.workbench import ErasureData


def retained_mixture(config: EraseConfig, data: ErasureData, schedule: NoiseSchedule) -> RetainedMixture | None:
    """The mixture that null labels are aimed at, if the model has a null row and the config trusts it to know the mixture."""
    if data.null_row is None or (config.target, config.mixture_estimate) != ("mixture", "closed-form"):
        return None
    images, labels = torch.cat([data.retain, data.forget]), torch.cat([data.retain_labels, data.forget_labels])
    posterior = ClassPosterior(images, labels, schedule, config.posterior_bandwidth)
    return RetainedMixture(posterior, data.forgotten, data.null_row, objective.rising(config.repulsion, schedule))


def make_target(config: EraseConfig, data: ErasureData, schedule: NoiseSchedule, base: Denoiser, mixture: RetainedMixture | None) -> Target:
    """The forget target that the config names; ``mixture`` is that of :func:`retained_mixture`.

    Raises:
        BadInput: the anchor is forgotten, or is no label.
    """
    if config.target == "noise":
        return objective.uniform_noise(schedule)
    if config.target == "relabel":
        return objective.relabelled(objective.uniform_over(torch.unique(data.retain_labels)))
    if config.target == "anchor":
        return objective.relabelled(objective.always(anchor_label(config, data)))
    if mixture:
        return mixture.target()
    posterior = ClassPosterior(data.retain, data.retain_labels, schedule, config.posterior_bandwidth)
    drawn = objective.relabelled(objective.from_posterior(posterior))
    return objective.repelled(drawn, base, data.forgotten, objective.rising(config.repulsion, schedule)) if config.repulsion else drawn


def anchor_label(config: EraseConfig, data: ErasureData) -> int:
    """The label of target ``anchor``: the configured one, or the next retained label after the forgotten one.

    Raises:
        BadInput: the configured label is neither retained nor one of the data's anchors.
    """
    retained = [int(label) for label in torch.unique(data.retain_labels)]
    if config.anchor is None:
        return next((label for label in retained if label > int(data.forgotten[0])), retained[0])
    if config.anchor not in (*retained, *data.anchors):
        raise BadInput(f"anchor {config.anchor} is not a retained label: choose one of {', '.join(map(str, retained))}.")
    return config.anchor
