"""Check before serving that an exported model may be served."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from erasediff.envelopes import PublicKey, read_manifest
from erasediff.errors import BadInput, IntegrityError
from erasediff.files import sha256_file
from erasediff.records.core import DATA_SUFFIX, MANIFEST, Servable, ServedModel, Verdict
from erasediff.records.serving import ServingRules
from erasediff.serve.solver import SolverTable, load_table


@dataclass(frozen=True)
class Admitted:
    """A model that may be served, with the table of its measured solver."""

    model: ServedModel
    graph: Path
    decoder: Path | None
    table: SolverTable


def admit(folder: Path, rules: ServingRules, key: PublicKey | None) -> Admitted:
    """Check the folder of an exported model: the signature of its manifest first, where there is a key.

    Raises:
        BadInput: it is not an exported model, its manifest is not signed by the key, it did not pass, has too low an epoch, or was revoked.
        IntegrityError: the manifest was changed, or the graph or the table is not the measured one.
    """
    if not (folder / MANIFEST).is_file():
        raise BadInput(
            f"{folder} holds no {MANIFEST}: give the folder `onnx` of a run that passed, or a registered version; a model from elsewhere is "
            "registered by `erasediff import-base` and erased from by `erasediff run` first."
        )
    model = read_manifest(folder, key)
    check_servable(model, rules)
    for pointer in model.files:
        file = folder / Path(pointer.uri).name
        if not file.is_file() or sha256_file(file) != pointer.sha256:
            raise IntegrityError(f"{file} is not the file that was measured: fetch the model again.")
    _check_no_other_weights(folder, model)
    table = load_table(folder / Path(model.solvers.uri).name, model.solver)
    decoder = None if model.decoder is None else folder / Path(model.decoder.uri).name
    return Admitted(model, folder / Path(model.onnx.uri).name, decoder, table)


def _check_no_other_weights(folder: Path, model: ServedModel) -> None:
    """Refuse weights beside a graph that its manifest does not name: the graph would read them, and no digest would cover them."""
    named = {Path(pointer.uri).name for pointer in model.files}
    if other := sorted(path for path in folder.glob(f"*{DATA_SUFFIX}") if path.name not in named):
        raise IntegrityError(f"{other[0]} lies beside the graph and its manifest does not name it: fetch the model again.")


def check_servable(model: Servable, rules: ServingRules) -> None:
    """Check that the rules allow a model; repeated whenever the rules change.

    Raises:
        BadInput: it did not pass, has too low an epoch, or was revoked.
    """
    if model.verdict is not Verdict.PASS:
        raise BadInput(f"the model's verdict is {model.verdict}: only a model that passed is served.")
    if model.epoch < rules.minimum_epoch:
        raise BadInput(
            f"the model has erasure epoch {model.epoch}, below the minimum {rules.minimum_epoch}: serve a version that has forgotten more."
        )
    if revoked := {model.onnx.sha256, model.weights_sha256} & set(rules.revoked):
        raise BadInput(f"the model {min(revoked)[:12]} has been revoked: serve a later version.")
