"""One ONNX graph of the denoiser with a dynamic batch axis, the onnxruntime denoiser over it, and their parity."""

from __future__ import annotations

import contextlib
import io
import logging
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from erasediff.errors import BadInput
from erasediff.export.external import data_file, name_weights
from erasediff.files import atomic_path, explain_disk_errors, temporary_folder
from erasediff.models.denoiser import Denoiser
from erasediff.models.family import Model
from erasediff.records.core import DATA_SUFFIX, Parity
from erasediff.serve.graph import IMAGES, INPUTS, LATENTS, OUTPUT, OnnxGraph

_LARGEST_TRACED = 63
"""diffusers' upsampler changes the memory layout of batches of 64 and more, which the exporter would trace as a second branch.

The graph's batch axis is dynamic and has no bound; parity is measured on both sides of this one.
"""
BATCHES, TIMESTEPS = (1, 2, 3, 16, 64), (0, 1, 250, 500, 999)


class _Forward(nn.Module):
    """The denoiser with positional inputs and one output, as the exporter wants it."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.network = model.network.cpu().eval()
        self._denoiser = model.denoiser_of(self.network)

    def forward(self, noised: Tensor, timesteps: Tensor, labels: Tensor) -> Tensor:
        return self._denoiser(noised, timesteps, labels)


def example_inputs(model: Model, batch: int, timestep: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs of the denoiser: noise ``[B,C,H,W]``, one timestep for all, labels running through the rows."""
    noised = torch.randn(batch, *model.state_shape, generator=torch.Generator().manual_seed(seed))
    labels = torch.arange(batch, dtype=torch.int64) % (model.conditions + (model.null_row is not None))
    return noised, torch.full((batch,), timestep, dtype=torch.int64), labels


def export_denoiser(model: Model, path: Path) -> None:
    """Write the denoiser as ONNX; weights above 1.5 GB go to a file beside it, see :mod:`erasediff.export.external`.

    Args:
        model: it is exported as float32.
        path: where to.

    Raises:
        BadInput: the exporter put weights into another file, or the disk is full.
    """
    # An example batch of 1 would make the exporter fix the axis at 1.
    batch = torch.export.Dim("batch", min=1, max=_LARGEST_TRACED)
    _export(_Forward(model), example_inputs(model, batch=2, timestep=10), ({0: batch},) * 3, INPUTS, OUTPUT, path)


def export_decoder(model: Model, decoder: nn.Module, path: Path) -> None:
    """Write the decoder of a latent model as ONNX, for one latent at a time."""
    latents = torch.randn(1, *model.state_shape, generator=torch.Generator().manual_seed(0))
    _export(decoder.cpu().eval(), (latents,), ({},), (LATENTS,), IMAGES, path)


def _export(module: nn.Module, inputs: tuple[Tensor, ...], dynamic: Any, names: Sequence[str], output: str, path: Path) -> None:
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module, inputs, dynamo=True, dynamic_shapes=dynamic, input_names=list(names), output_names=[output], verbose=False
        )
    assert program is not None, "the dynamo exporter returns a program"
    with explain_disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        # The graph names the file with its weights, so both are written under their final names, in a folder of their own.
        with temporary_folder(path.parent, f".{path.name}.") as folder:
            program.save(str(folder / path.name))
            name_weights(folder / path.name)
            path.with_name(f"{path.name}{DATA_SUFFIX}").unlink(missing_ok=True)
            for written in sorted(folder.iterdir(), reverse=True):  # the graph is last
                with atomic_path(path.with_name(written.name)) as temporary:
                    written.replace(temporary)


class OnnxDenoiser:
    """ε_θ through onnxruntime, with the same call as the PyTorch denoiser."""

    def __init__(self, path: Path) -> None:
        """Open the graph; see :class:`erasediff.serve.graph.OnnxGraph`."""
        self._graph = OnnxGraph(path)

    def __call__(self, noised: Tensor, timesteps: Tensor, labels: Tensor) -> Tensor:
        """See :class:`erasediff.models.denoiser.Denoiser`."""
        return torch.from_numpy(self._graph(noised.numpy(), timesteps.numpy(), labels.numpy()))


def quantise(path: Path, out: Path) -> None:
    """Write a graph with 8-bit weights and activations quantised at run time (onnxruntime's dynamic quantisation).

    Args:
        path: the exported graph.
        out: where to write the new one.
    """
    from onnxruntime.quantization import quantize_dynamic

    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        quantize_dynamic(path, out, use_external_data_format=data_file(path) is not None)


@torch.no_grad()
def measure_parity(
    model: Model,
    exported: Denoiser,
    batches: Sequence[int] = BATCHES,
    timesteps: Sequence[int] = TIMESTEPS,
) -> tuple[Parity, ...]:
    """The largest error of the exported denoiser relative to the largest prediction, for every batch size and timestep.

    Raises:
        BadInput: a prediction is NaN or infinite.
    """
    rows = []
    for batch in batches:
        for timestep in timesteps:
            inputs = example_inputs(model, batch, min(timestep, model.schedule.timesteps - 1), seed=timestep)
            wanted = model.denoiser(*inputs)
            error = float((exported(*inputs) - wanted).abs().max() / wanted.abs().max())
            if not math.isfinite(error):
                raise BadInput(f"the exported graph or its model predicts values that are not finite at timestep {timestep}: erase again.")
            rows.append(Parity(batch=batch, timestep=timestep, max_relative_error=error))
    return tuple(rows)
