"""Models as somebody else trains them: diffusers' own classes, a plain loop, ``save_pretrained``. Nothing here is of this package."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DDPMScheduler, DiTPipeline, DiTTransformer2DModel, UNet2DModel
from torch import Tensor, nn

SHAPES = {"circle": (1, 0.3, 0.3), "cross": (0.3, 1, 0.3), "ring": (0.4, 0.4, 1), "square": (1, 1, 0.2)}
"""Names of classes, in alphabetical order as readers sort them, and how much red, green and blue they have."""


def shapes(side: int, each: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Pictures ``uint8 [N,side,side,3]`` of four shapes, in places, sizes and shades of their own, and their names ``[N]``."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side
    images, names = [], []
    for name, colour in SHAPES.items():
        for _ in range(each):
            (cx, cy), size = rng.uniform(0.42, 0.58, 2), rng.uniform(0.26, 0.32)
            dx, dy = np.abs(x - cx), np.abs(y - cy)
            far = np.hypot(dx, dy)
            inside = {
                "circle": far < size,
                "cross": (np.minimum(dx, dy) < 0.09) & (np.maximum(dx, dy) < size),
                "ring": (far < size) & (far > size - 0.13),
                "square": np.maximum(dx, dy) < size * 0.9,
            }[name]
            images.append(inside[..., None] * np.multiply(colour, rng.uniform(0.7, 1.0, 3)) * 255)
            names.append(name)
    return np.stack(images).astype(np.uint8), np.array(names)


def write_dataset(folder: Path, images: np.ndarray, names: np.ndarray) -> None:
    """One shard."""
    folder.mkdir(parents=True)
    np.savez(folder / "a.npz", images=images, labels=names)


def _batches(*tensors: Tensor, steps: int, size: int) -> Iterator[tuple[int, list[Tensor]]]:
    generator = torch.Generator().manual_seed(0)
    for step in range(steps):
        picked = torch.randint(len(tensors[0]), (size,), generator=generator)
        yield step, [tensor[picked] for tensor in tensors]


def fit(network: nn.Module, predict: Callable[..., Tensor], scheduler: Any, states: Tensor, labels: Tensor, steps: int, rate: float = 2e-3) -> None:
    """The usual loop: Adam, ε or v as the scheduler says, and an average of the weights at the end."""
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    average = torch.optim.swa_utils.AveragedModel(network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.98))
    network.train()
    for step, (clean, named) in _batches(states, labels, steps=steps, size=32):
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / 50) * (1 - step / steps)
        timesteps = torch.randint(scheduler.config.num_train_timesteps, (len(clean),))
        noise = torch.randn_like(clean)
        noised = scheduler.add_noise(clean, noise, timesteps)
        goal = noise if scheduler.config.prediction_type == "epsilon" else scheduler.get_velocity(clean, noise, timesteps)
        loss = nn.functional.mse_loss(predict(network, noised, timesteps, named), goal)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        average.update_parameters(network)
    network.load_state_dict(average.module.state_dict())
    network.eval()


def _unit(images: np.ndarray) -> Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1


def unet(folder: Path, images: np.ndarray, labels: Tensor, classes: int, scheduler: Any, *, null: bool, steps: int, shards: str = "10GB") -> None:
    """A class-conditional ``UNet2DModel``, with a row that a tenth of the labels goes under, or without one; no ``model_index.json``."""
    torch.manual_seed(0)
    network = UNet2DModel(
        sample_size=images.shape[1],
        in_channels=images.shape[3],
        out_channels=images.shape[3],
        block_out_channels=(16, 24, 32) if images.shape[1] > 8 else (32, 64),
        layers_per_block=1,
        norm_num_groups=8,
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D")[-3 if images.shape[1] > 8 else -2 :],
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D")[: 3 if images.shape[1] > 8 else 2],
        num_class_embeds=classes + null,
    )

    def predict(model: nn.Module, noised: Tensor, timesteps: Tensor, named: Tensor) -> Tensor:
        dropped = torch.rand(len(named)) < 0.1
        return model(noised, timesteps, class_labels=torch.where(dropped, classes, named) if null else named).sample

    fit(network, predict, scheduler, _unit(images), labels, steps)
    network.save_pretrained(folder / "unet", max_shard_size=shards)
    scheduler.save_pretrained(folder / "scheduler")


def dit(folder: Path, images: np.ndarray, labels: Tensor, classes: int, steps: int) -> None:
    """A ``DiTPipeline``: two blocks, ε with a variance that is never looked at, on latents of an ``AutoencoderKL`` of its own."""
    torch.manual_seed(0)
    pixels = _unit(images)
    vae = AutoencoderKL(
        in_channels=images.shape[3],
        out_channels=images.shape[3],
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(16, 32),
        layers_per_block=1,
        norm_num_groups=8,
        latent_channels=4,
        sample_size=images.shape[1],
        scaling_factor=1.0,
    )
    optimizer = torch.optim.Adam(vae.parameters(), lr=3e-3)
    for _, (clean,) in _batches(pixels, steps=400, size=32):
        code = vae.encode(clean).latent_dist
        loss = nn.functional.mse_loss(vae.decode(code.sample()).sample, clean) + 1e-5 * code.kl().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    vae.eval()
    with torch.no_grad():
        latents = torch.cat([vae.encode(part).latent_dist.mean for part in pixels.split(64)])
    vae.register_to_config(scaling_factor=float(1 / latents.std()))
    network = DiTTransformer2DModel(
        num_attention_heads=4,
        attention_head_dim=24,
        in_channels=4,
        out_channels=8,
        num_layers=2,
        sample_size=images.shape[1] // 2,
        patch_size=2,
        num_embeds_ada_norm=classes,
    )
    scheduler = DDPMScheduler(beta_schedule="linear")

    def predict(model: nn.Module, noised: Tensor, timesteps: Tensor, named: Tensor) -> Tensor:
        return model(noised, timestep=timesteps, class_labels=named).sample[:, :4]

    fit(network, predict, scheduler, latents / latents.std(), labels, steps)
    DiTPipeline(network, vae, scheduler).save_pretrained(folder)
