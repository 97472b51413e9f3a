"""Run a tiny erasure from its checkpoint, if there is one: `python resumable.py checkpoint result`, a line of output a step."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from erasediff.models.families.unet import ClassConditionalUNet, build_unet
from erasediff.models.process import build_scheduler, squared_cosine
from erasediff.records.config import DenoiserConfig, EraseConfig, SamplerConfig
from erasediff.unlearn.compute import Compute
from erasediff.unlearn.trainer import Erasure, ErasureResult, run
from erasediff.unlearn.workbench import ErasureData

FORGET, NULL, KEY = 4, 10, "0" * 64


def make_data(earlier: tuple[int, ...] = (), forget: tuple[int, ...] = (FORGET,)) -> ErasureData:
    """Random images: 16 of each class to forget, 16 of each class that is neither forgotten now nor earlier."""
    generator = torch.Generator().manual_seed(99)
    labels = torch.tensor([c for c in range(10) if c not in forget and c not in earlier]).repeat_interleave(16)
    retain = torch.rand(len(labels), 1, 8, 8, generator=generator) * 2 - 1
    forgotten = torch.tensor(forget).repeat_interleave(16)
    return ErasureData(torch.rand(len(forgotten), 1, 8, 8, generator=generator) * 2 - 1, forgotten, retain, labels, NULL, earlier)


def make_erasure(seed: int = 0, earlier: tuple[int, ...] = (), data: ErasureData | None = None, **settings: object) -> Erasure:
    """An erasure before its first step."""
    config = EraseConfig.model_validate({"steps": 40, "batch_size": 8, "checkpoint_every": 4} | settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        unet = build_unet(DenoiserConfig(block_out_channels=(8, 16), norm_num_groups=4), 1, 8, 10)
    base = ClassConditionalUNet.of(unet, build_scheduler(SamplerConfig(), squared_cosine(1000)))
    return Erasure(base, data or make_data(earlier), config, seed, Compute("cpu", config.precision))


def everything(result: ErasureResult) -> dict[str, torch.Tensor]:
    """All that an erasure hands over, as tensors."""
    numbers = torch.tensor([result.ema_base_share, result.forward_passes, result.backward_passes], dtype=torch.float64)
    curves = {f"curves.{name}": value.contiguous() for name, value in result.curves.items()}
    return {**result.model.state_dict(), **curves, "numbers": numbers}


def main() -> None:
    """See the module."""
    checkpoint, result = map(Path, sys.argv[1:])
    torch.set_num_threads(1)
    finished = run(make_erasure(), checkpoint, KEY, lambda step: print(step, flush=True))
    save_file(everything(finished), result)


if __name__ == "__main__":
    main()
