"""The exported denoiser and the decoder of a latent model in onnxruntime, on numpy arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from erasediff.errors import BadInput
from erasediff.serve.solver import Array

INPUTS, OUTPUT = ("noised", "timesteps", "labels"), "noise"
LATENTS, IMAGES = "latents", "images"
"""The decoder's input and output."""
CPU = "CPUExecutionProvider"


def _session(path: Path, provider: str, threads: int) -> Any:
    """An open session.

    Raises:
        BadInput: the file is not an ONNX graph, or the provider is not the one in use.
    """
    import onnxruntime

    if provider not in onnxruntime.get_available_providers():
        raise BadInput(f"onnxruntime here has no {provider}: install the build that has it, such as onnxruntime-gpu.")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=[provider])
    except Exception as error:  # onnxruntime's errors have no common base class
        raise BadInput(f"{path} cannot be opened by onnxruntime ({type(error).__name__}): export the model again.") from error
    if session.get_providers()[0] != provider:
        raise BadInput(f"onnxruntime fell back from {provider} to {session.get_providers()[0]}: install the matching build.")
    return session


def _shape(tensor: Any) -> tuple[int, int, int]:
    channels, height, width = tensor.shape[1:]
    return int(channels), int(height), int(width)


class OnnxGraph:
    """An open session of a denoiser; see :class:`erasediff.serve.solver.Graph`."""

    def __init__(self, path: Path, provider: str = CPU, threads: int = 1) -> None:
        """Open the graph.

        Args:
            path: the ``.onnx`` file.
            provider: onnxruntime's execution provider.
            threads: threads of one call.

        Raises:
            BadInput: the file is not an ONNX graph, or the provider is not the one in use.
        """
        self._session = _session(path, provider, threads)

    @property
    def state_shape(self) -> tuple[int, int, int]:
        """``(C, H, W)`` of what is denoised."""
        return _shape(self._session.get_inputs()[0])

    def __call__(self, noised: Array, timesteps: NDArray[np.int64], labels: NDArray[np.int64]) -> Array:
        """ε or v ``float32 [B,C,H,W]`` of states ``[B,C,H,W]`` at timesteps ``[B]`` under labels ``[B]``."""
        output: Array = self._session.run([OUTPUT], dict(zip(INPUTS, (noised, timesteps, labels), strict=True)))[0]
        return output


class OnnxDecoder:
    """An open session of the network that makes images of latents."""

    def __init__(self, path: Path, provider: str = CPU, threads: int = 1) -> None:
        """Open the graph; see :class:`OnnxGraph`."""
        self._session = _session(path, provider, threads)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """``(C, H, W)`` of one image."""
        return _shape(self._session.get_outputs()[0])

    def __call__(self, latents: Array) -> Array:
        """Images ``float32 [N,C,H,W]`` in -1..1 of latents ``[N,C,h,w]``, one after the other: memory is bounded by one image."""
        return np.concatenate([self._session.run([IMAGES], {LATENTS: latents[at : at + 1]})[0] for at in range(len(latents))])
