"""The lie: 'the same seed, the same image', of a server that lets a request's neighbours change it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from erasediff.errors import BadInput
from erasediff.export.solvers import solver_table
from erasediff.serve.batches import Batcher, Capacity
from erasediff.serve.engine import Engine
from erasediff.serve.graph import OnnxGraph
from erasediff.serve.request import SamplingRequest
from tests.exported import export_once
from tests.small_models import model_of

SOLVER = "dpm-solver++-10"


@pytest.fixture(scope="module")
def engine(tiny_unet, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """Real onnxruntime over a real export."""
    path = tmp_path_factory.mktemp("engine") / "model.onnx"
    pipeline = model_of(tiny_unet())
    export_once(pipeline, path)
    graph = OnnxGraph(path)
    assert graph.state_shape == pipeline.state_shape
    return Engine(graph, solver_table("dpm-solver++", 10, pipeline.schedule), graph.state_shape, pipeline.null_row)


def asking(seed: int, count: int = 1, label: int = 3, guidance: float = 1.0) -> SamplingRequest:
    return SamplingRequest(label=label, count=count, seed=seed, solver=SOLVER, guidance=guidance)


def furthest(left: np.ndarray, right: np.ndarray) -> int:
    return int(np.abs(left.astype(int) - right.astype(int)).max())


def test_a_request_gets_its_images_whatever_else_is_in_the_batch(engine: Engine) -> None:
    """To one grey level: onnxruntime's kernels add in another order where a batch is larger."""
    mine = engine([asking(7, 2, guidance=3.0)])
    crowd = [asking(100, 5, label=1), asking(7, 2, guidance=3.0), asking(200, 3, label=10, guidance=0.0)]
    assert mine.shape == (2, 8, 8, 1)
    assert furthest(engine(crowd)[5:7], mine) <= 1
    assert furthest(engine([asking(8, 2, guidance=3.0)]), mine) > 1, "control: another seed"
    assert furthest(engine([asking(7, 2)]), mine) > 1, "control: another guidance"
    assert furthest(engine([asking(7, 2, label=4, guidance=3.0)]), mine) > 1, "control: another label"


def test_two_requests_for_one_image_are_one_for_two(engine: Engine) -> None:
    both = engine([asking(7, 2)])
    assert furthest(np.concatenate([engine([asking(7)]), engine([asking(8)])]), both) <= 1


def test_through_the_queue_from_many_clients(engine: Engine) -> None:
    batcher = Batcher(engine, Capacity(batch=8, waiting=200, deadline_seconds=60))
    asked = [asking(seed, 1 + seed % 3, label=seed % 11, guidance=1.0 + seed % 2) for seed in range(0, 60, 3)]
    answers = [batcher.submit(one) for one in asked]
    for one, answer in zip(asked, answers, strict=True):
        assert furthest(answer.result(60), engine([one])) <= 1
    batcher.drain()
    assert batcher.load.largest_batch > 1, "control: they were sampled together"


def test_what_is_no_graph_is_refused_with_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(BadInput, match="export the model again"):
        OnnxGraph(tmp_path / "model.onnx")
