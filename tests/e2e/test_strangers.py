"""The lie: 'it works with your model', of models that diffusers' own classes and a plain loop made; each goes from its import to a certificate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from diffusers import DDIMScheduler, DDPMScheduler
from sklearn.datasets import load_digits

from erasediff.attempts.workdir import Workdir
from erasediff.envelopes import read_public_key
from erasediff.evidence.keys import PRIVATE, PUBLIC
from erasediff.records.core import ExportedRecord, Outcome, VerdictRecord
from erasediff.records.serving import ServingRules
from erasediff.serve.admission import admit
from erasediff.serve.engine import Engine
from erasediff.serve.graph import OnnxDecoder, OnnxGraph
from erasediff.serve.request import SamplingRequest
from tests import strangers
from tests.e2e.conftest import log_of
from tests.e2e.numbers import QUICK

ROOT = Path(__file__).parents[2]
LINEAR, V = DDPMScheduler(beta_schedule="linear"), DDIMScheduler(beta_schedule="scaled_linear", prediction_type="v_prediction")


def digits() -> tuple[np.ndarray, np.ndarray]:
    found = load_digits()
    return np.floor(found.images * 255 / 16 + 0.5).astype(np.uint8)[..., None], found.target.astype(str)


def rows_of(names: np.ndarray) -> torch.Tensor:
    order = sorted(set(names))
    return torch.tensor([order.index(name) for name in names])


def a_dit(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    images, names = strangers.shapes(16, 250)
    strangers.dit(folder, images, rows_of(names), 4, steps=1200)
    return images, names


def without_a_null_row(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    images, names = digits()
    strangers.unet(folder, images, rows_of(names), 10, V, null=False, steps=700)
    return images, names


def linear(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    images, names = digits()
    strangers.unet(folder, images, rows_of(names), 10, LINEAR, null=True, steps=1500)
    return images, names


def in_colour(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    images, names = strangers.shapes(32, 250)
    strangers.unet(folder, images, rows_of(names), 4, V, null=True, steps=900, shards="300KB")
    assert len(list((folder / "unet").glob("*.safetensors"))) > 1
    return images, names


QUICKLY = {"erase": {"steps": 100, "learning_rate": 0.001}, "detector": {"steps": 200}, "sampler": {"steps": 10}}
MODELS: dict[str, tuple[Callable[[Path], tuple[np.ndarray, np.ndarray]], str, Path, dict]] = {
    "a DiT": (a_dit, "cross", QUICK / "policy.yaml", QUICKLY),
    "without a null row": (without_a_null_row, "3", QUICK / "policy.yaml", QUICKLY),
    "in colour, 32x32, in shards": (in_colour, "cross", QUICK / "policy.yaml", QUICKLY),
    "at the default policy": (linear, "0", ROOT / "policies/class-conditional.yaml", {}),
}
pytestmark = pytest.mark.thorough


@pytest.fixture(scope="module", params=list(MODELS))
def finished(request, tmp_path_factory, erasediff):
    """Train, import, file a request and have it fulfilled; what all of it left, and the name of the case."""
    make, label, policy, settings = MODELS[request.param]
    here = tmp_path_factory.mktemp("stranger")
    images, names = make(here / "model")
    strangers.write_dataset(here / "data", images, names)
    config = {"model_name": "theirs", "dataset": {"name": "theirs", "kind": "shards", "path": str(here / "data")}} | settings
    (here / "config.yaml").write_text(yaml.safe_dump(config))
    assert erasediff("keys", "new", "--to", here / "keys").returncode == 0
    environment = {"ERASEDIFF_SIGNING_KEY": str(here / "keys" / PRIVATE), "ERASEDIFF_BY": "desk-1"}

    def run(*arguments: object):
        done = erasediff(*arguments, "--workdir", here / "work", environment=environment)
        assert done.returncode == 0, done.stdout + done.stderr + (log_of(here / "work") if (here / "work/pipeline.log").exists() else "")
        return done.stdout

    documents = ("--config", here / "config.yaml", "--policy", policy)
    print(run("import-base", here / "model", *documents, "--sheet", here / "sheet.png"))
    request_id = run("request", "add", "--dataset-name", "theirs", "--label", label).partition(":")[0]
    for verb in ("verify", "locate", "accept"):
        run("request", verb, request_id)
    run("run", *documents, "--forget-label", label)
    return request.param, Workdir(here / "work"), label


def test_a_stranger_s_model_is_erased_judged_promoted_and_certified(finished) -> None:
    name, workdir, label = finished
    outcome = Outcome.read(workdir.outcome)
    assert (outcome.verdict, outcome.error, outcome.forget.label) == ("PASS", None, label)
    assert outcome.certificate is not None
    assert (workdir.root / outcome.certificate).is_file()
    verdict = workdir.attempt().need(VerdictRecord)
    print(name, {check.id: (check.value, check.bound, str(check.verdict)) for check in verdict.checks})
    asked = {check.id for check in verdict.checks}
    assert ("F2" in asked) is (name != "without a null row")
    assert ("F2" in verdict.left_out) is (name == "without a null row")
    assert ("without a row for no class" in (workdir.root / "report.html").read_text()) is (name == "without a null row")


def test_its_graphs_are_served_by_names(finished) -> None:
    """By the server's own code, from the published folder: other rows are other images, and seeds decide them."""
    name, workdir, label = finished
    exported = workdir.attempt().need(ExportedRecord)
    admitted = admit((workdir.attempt().folder / exported.onnx.uri).parent, ServingRules(), read_public_key(workdir.root.parent / "keys" / PUBLIC))
    assert admitted.model.forgotten == (label,)
    assert (admitted.decoder is not None) is (name == "a DiT")
    graph, decoder = OnnxGraph(admitted.graph), OnnxDecoder(admitted.decoder) if admitted.decoder else None
    engine = Engine(graph, admitted.table, graph.state_shape, admitted.model.classes if admitted.model.null_row else None, decoder)

    def draw(row: int, seed: int = 0) -> np.ndarray:
        return engine([SamplingRequest(row, 4, seed, admitted.model.solver, 1.0)])

    drawn = draw(0)
    assert drawn.dtype == np.uint8
    assert np.array_equal(drawn, draw(0))
    assert not np.array_equal(drawn, draw(2)), "control"
    assert not np.array_equal(drawn, draw(0, 9)), "control"
