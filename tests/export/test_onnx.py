"""The lie: 'what is served is what was measured'."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import torch

from erasediff.errors import BadInput
from erasediff.export.onnx import INPUTS, OUTPUT, OnnxDenoiser, example_inputs, export_denoiser, measure_parity, quantise
from erasediff.models.families.unet import ClassConditionalUNet
from erasediff.models.process import build_scheduler, squared_cosine
from erasediff.models.sampler import sample
from erasediff.records.config import SamplerConfig
from tests.small_models import model_of

BATCHES = (1, 2, 3, 16)
LIMIT = 1e-3  # of the shipped policy


def pipeline_of(unet: torch.nn.Module) -> ClassConditionalUNet:
    return model_of(unet)


@pytest.fixture(scope="module")
def pipeline(tiny_unet) -> ClassConditionalUNet:
    return pipeline_of(tiny_unet())


@pytest.fixture(scope="module")
def graph(pipeline: ClassConditionalUNet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "model.onnx"
    export_denoiser(pipeline, path)
    return path


def test_the_graph_is_the_denoiser_at_every_batch_size(pipeline: ClassConditionalUNet, graph: Path) -> None:
    """Real onnxruntime, every label and the null label, the ends of the schedule and its middle."""
    rows = measure_parity(pipeline, OnnxDenoiser(graph), BATCHES, (0, 1, 500, 999))
    assert {(row.batch, row.timestep) for row in rows} == {(b, t) for b in BATCHES for t in (0, 1, 500, 999)}
    assert max(row.max_relative_error for row in rows) < LIMIT


@pytest.mark.parametrize("part", ["conv_out.bias", "class_embedding.weight", "time_embedding.linear_2.bias"])
def test_control_other_weights_break_the_parity(tiny_unet, graph: Path, part: str) -> None:
    """Also those that only the label or the timestep reaches: a graph that dropped an input would be seen."""
    other = tiny_unet()
    with torch.no_grad():
        other.get_parameter(part).add_(0.5)
    rows = measure_parity(pipeline_of(other), OnnxDenoiser(graph), (2,), (500,))
    assert max(row.max_relative_error for row in rows) > LIMIT


def test_the_example_asks_for_every_label_and_the_null_label(pipeline: ClassConditionalUNet) -> None:
    assert set(example_inputs(pipeline, 16, 3)[2].tolist()) == set(range(11))


def test_the_graph_stands_alone_and_names_its_ends(graph: Path) -> None:
    """One file, checked by onnx itself, dynamic in its batch alone."""
    assert [path.name for path in graph.parent.iterdir()] == ["model.onnx"]
    model = onnx.load(graph)
    onnx.checker.check_model(model)
    assert [value.name for value in model.graph.input] == list(INPUTS)
    assert [value.name for value in model.graph.output] == [OUTPUT]
    shape = [d.dim_param or d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    assert isinstance(shape[0], str)
    assert shape[1:] == [1, 8, 8]


@pytest.mark.parametrize("scheduler", ["ddim", "dpm-solver++", "unipc"])
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_sampling_from_the_graph_is_sampling_from_the_model(pipeline, graph: Path, scheduler: str, guidance: float) -> None:
    """One sampling loop for both; one grey level for the last bits of float32."""
    solver = build_scheduler(SamplerConfig(scheduler=scheduler), squared_cosine(1000))
    measured = replace(pipeline, scheduler=solver).source(torch.device("cpu"))
    served = replace(measured, denoiser=OnnxDenoiser(graph))
    asked = (torch.arange(6), [1, 2, 3, 4, 5, 6], 6, guidance)
    drawn = sample(served, *asked).int()
    assert (drawn - sample(measured, *asked).int()).abs().max() <= 1
    other = sample(measured, torch.arange(6), [7, 8, 9, 10, 11, 12], 6, guidance).int()
    assert (drawn - other).abs().max() > 1, "control"


@pytest.mark.parametrize("damage", [lambda data: data[:-5000], lambda data: b"", lambda data: b"\x80\x04 a pickle"])
def test_a_broken_graph_is_refused_with_one_sentence(graph: Path, tmp_path: Path, damage) -> None:
    broken = tmp_path / "model.onnx"
    broken.write_bytes(damage(graph.read_bytes()))
    with pytest.raises(BadInput, match=r"^[^\n]*model\.onnx cannot be opened by onnxruntime[^\n]*: export the model again\.$"):
        OnnxDenoiser(broken)
    with pytest.raises(BadInput, match="cannot be opened"):
        OnnxDenoiser(tmp_path / "missing.onnx")


def test_a_model_that_predicts_nan_is_refused_with_one_sentence(tiny_unet, graph: Path) -> None:
    """NaN compares as neither larger nor smaller than a threshold: it must not get as far as one."""
    broken = tiny_unet()
    with torch.no_grad():
        broken.conv_out.bias.fill_(torch.nan)
    with pytest.raises(BadInput, match=r"not finite at timestep 500[^\n]*\.$"):
        measure_parity(pipeline_of(broken), OnnxDenoiser(graph), (2,), (500,))


def test_weights_of_8_bits_are_another_graph_and_the_first_one_stays(pipeline: ClassConditionalUNet, graph: Path, tmp_path: Path) -> None:
    """The lie: 'asked with weights of 8 bits', of the graph as it was."""
    before, out = graph.read_bytes(), tmp_path / "int8.onnx"
    quantise(graph, out)
    assert graph.read_bytes() == before
    types = {weight.data_type for weight in onnx.load(out).graph.initializer if len(weight.dims) >= 2}
    assert types & {onnx.TensorProto.INT8, onnx.TensorProto.UINT8}
    worst = max(row.max_relative_error for row in measure_parity(pipeline, OnnxDenoiser(out), (2,), (10, 500)))
    assert LIMIT < worst < 0.5, "rounded, and still the model"
