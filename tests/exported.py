"""A folder as the export step writes it: a real graph of a small random denoiser, real tables of a solver, and the manifest."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import torch

from erasediff.evidence.signing import sign
from erasediff.export.onnx import export_denoiser
from erasediff.export.solvers import solver_table
from erasediff.files import sha256_bytes, sha256_file
from erasediff.models.families.unet import ClassConditionalUNet
from erasediff.records.base import Pointer
from erasediff.records.core import MANIFEST, SERVED, ServedModel, Verdict
from erasediff.serve.solver import save_table
from tests.digits import DIGITS
from tests.issuer import issuer_key
from tests.shared import shared
from tests.small_models import model_of

SOLVER = "ddim-2"


def export_once(model: ClassConditionalUNet, to: Path) -> None:
    """Put the graph of a denoiser into a file; the same weights are exported once, for that takes five seconds."""
    weights = sha256_bytes(b"".join(value.numpy().tobytes() for value in model.network.state_dict().values()))
    shutil.copyfile(shared(f"exported/{weights}.onnx", lambda path: export_denoiser(model, path)), to)


def export_random(folder: Path, unet: Callable[..., torch.nn.Module], seed: int, epoch: int, forgotten: tuple[int, ...] = ()) -> ServedModel:
    """Export a random denoiser: what it draws is noise, and everything else is as it will be."""
    folder.mkdir(parents=True, exist_ok=True)
    pipeline = model_of(unet(seed))
    export_once(pipeline, folder / "model.onnx")
    save_table(SOLVER, solver_table("ddim", 2, pipeline.schedule), folder / "solvers.npz")
    return describe(folder, epoch=epoch, forgotten=tuple(map(str, forgotten)), weights_sha256=f"{seed:064x}")


def describe(folder: Path, **changes: object) -> ServedModel:
    """Write the manifest of the files that lie there, signed by the tests' issuer."""
    onnx, solvers = (Pointer(uri=f"onnx/{name}", sha256=sha256_file(folder / name)) for name in ("model.onnx", "solvers.npz"))
    fields = {"dataset": "digits", "class_names": DIGITS, "forgotten": ("8",), "epoch": 1, "solver": SOLVER, "guidance_scale": 1.0}
    good = {"onnx": onnx, "solvers": solvers, "weights_sha256": "1" * 64, "verdict": Verdict.PASS, **fields}
    model = ServedModel.model_validate(good | changes)
    (folder / MANIFEST).write_bytes(sign(model, SERVED, issuer_key()))
    return model
