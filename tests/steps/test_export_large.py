"""The lie: 'the digest of the graph is the digest of the model', of a graph whose weights lie in a file beside it.

torch writes such a file from 1.5 GB on; here from a thousand bytes on, so that a small model has one too.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch.onnx._internal.exporter import _onnx_program

from erasediff.attempts.attempt import Attempt
from erasediff.attempts.workdir import Workdir
from erasediff.envelopes import read_manifest
from erasediff.errors import BadInput, IntegrityError
from erasediff.export.external import data_file
from erasediff.export.onnx import OnnxDenoiser, export_decoder, export_denoiser, measure_parity, quantise
from erasediff.files import sha256_bytes, sha256_file
from erasediff.models.folder import save_model
from erasediff.records.base import Pointer
from erasediff.records.config import DetectorConfig, RunConfig, SamplerConfig
from erasediff.records.core import MANIFEST, BaseRecord, ErasedRecord, ExportedRecord, PlanRecord, Verdict, VerdictRecord
from erasediff.records.policy import load_policy
from erasediff.records.serving import ServingRules
from erasediff.rollout.store import Exported, FolderStore, store_for
from erasediff.serve.admission import admit
from erasediff.serve.graph import OnnxDecoder
from erasediff.steps.export_onnx import export_onnx
from erasediff.steps.judges import pin_judges
from erasediff.tracking import Tracking
from tests.certified import HMAC_KEY, QUICK, REQUEST, ROOT
from tests.digits import DIGITS
from tests.issuer import issuer_key
from tests.s3 import s3_server
from tests.serve.conftest import Running, serving, start
from tests.small_models import model_of

GRAPH, DATA = "model.onnx", "model.onnx.data"
LIMIT = 1e-3  # of the shipped policy


@pytest.fixture(scope="module", autouse=True)
def _every_graph_is_large() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(_onnx_program, "_LARGE_MODEL_THRESHOLD", 1_000)
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_unet: Callable[..., torch.nn.Module]) -> Attempt:
    """An attempt that passed the gate and was exported, after an earlier export that was killed."""
    from erasediff.data.datasets import load_dataset
    from erasediff.evaluate.real import real_images

    workdir = Workdir.open(tmp_path_factory.mktemp("large"))
    config = RunConfig(detector=DetectorConfig(steps=150), sampler=SamplerConfig(steps=2, batch_size=20))
    policy = load_policy(ROOT / "policies/class-conditional.yaml")
    policy = policy.model_copy(update={"tier": 2, "export": policy.export.model_copy(update={"n": 100, "max_upper": 0.2})})
    digests = {"config_digest": config.digest(), "policy_digest": policy.digest(), "seed_commitment": sha256_bytes(HMAC_KEY)}
    mlflow_run = Tracking(workdir.root).start_run("large", {})
    plan = PlanRecord(
        run="large", attempt=1, request=REQUEST, position=0, request_id="9" * 64, mlflow_run_id=mlflow_run, made_from={"dataset": "8" * 64}, **digests
    )
    run = workdir.open_attempt(plan, config, policy, HMAC_KEY)
    before, after = (save_model(model_of(tiny_unet(seed)), workdir.models, "digits", DIGITS, forgotten) for seed, forgotten in ((0, ()), (1, ("0",))))
    judges = pin_judges(run, real_images(load_dataset(config.dataset), config.dataset))
    BaseRecord(name="digits", version="1", model=before, judges=judges).write(run.path(BaseRecord))
    counts = {"steps": 60, "forward_passes": 300, "backward_passes": 120, "ema_base_share": 0.0}
    model = after.model_copy(update={"epoch": 1})
    ErasedRecord(model=model, curves=Pointer(uri="curves.npz", sha256="4" * 64), **counts).write(run.path(ErasedRecord))
    VerdictRecord.read(QUICK / "verdict.json").write(run.path(VerdictRecord))
    for left in (DATA, "vae_decoder.onnx.data", "model-inferred.onnx", f".{GRAPH}.killed/{GRAPH}"):
        path = run.folder / "onnx" / left
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"of an earlier export")
    export_onnx(run).write(run.path(ExportedRecord))
    return run


@pytest.fixture
def folder(run: Attempt, tmp_path: Path) -> Path:
    """A copy of what was exported."""
    return Path(shutil.copytree(run.folder / "onnx", tmp_path / "onnx"))


def changed(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_the_record_and_the_manifest_have_the_data_and_nothing_else_is_left(run: Attempt, folder: Path) -> None:
    exported = run.need(ExportedRecord)
    assert exported.verdict is Verdict.PASS, [(c.id, c.verdict, c.value, c.bound, c.threshold, c.reason) for c in exported.checks]
    served = read_manifest(folder, issuer_key().public)
    assert exported.forget_int8 is not None, "the graph with 8-bit weights was measured too"
    assert exported.data == served.data == (Pointer(uri=f"onnx/{DATA}", sha256=sha256_file(folder / DATA)),)
    assert {path.name for path in folder.iterdir()} == {GRAPH, DATA, "solvers.npz", MANIFEST}
    assert max(row.max_relative_error for row in exported.parity) < LIMIT


@pytest.mark.parametrize("damage", [changed, Path.unlink], ids=["changed", "missing"])
def test_data_that_are_not_the_measured_ones_are_neither_admitted_nor_published(folder: Path, tmp_path: Path, damage: Callable[[Path], None]) -> None:
    exported = Exported.read(folder)
    admit(folder, ServingRules(), issuer_key().public)  # control
    damage(folder / DATA)
    with pytest.raises(IntegrityError, match=rf"{DATA} is not the file that was measured"):
        admit(folder, ServingRules(), issuer_key().public)
    with pytest.raises(IntegrityError, match=rf"{DATA} is not the file that was measured"):
        FolderStore(tmp_path / "claim").publish(exported)


def answered(server: Running) -> bytes:
    answer = server.infer(label="3", seed=1)
    assert answer.status == 200, answer.body
    return answer.body.partition(b'"outputs"')[2]


def test_the_data_travel_through_a_bucket_to_the_server(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving("--model", folder) as server:
        control = answered(server)
    with s3_server(monkeypatch, "models") as (url, client):
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", url)
        uri = store_for("s3://models").publish(Exported.read(folder))
        with serving("--model", uri) as server:
            assert answered(server) == control
        key = f"{uri.removeprefix('s3://models/')}/{DATA}"
        client.put_object(Bucket="models", Key=key, Body=bytes(len((folder / DATA).read_bytes())))
        refused = start("--model", uri)
        assert "not the file that was measured" in refused.communicate(timeout=60)[1]
        client.delete_object(Bucket="models", Key=key)
        missing = start("--model", uri)
        assert "holds no exported model" in missing.communicate(timeout=60)[1]


def test_two_models_of_one_architecture_have_two_graphs(folder: Path, tiny_unet: Callable[..., torch.nn.Module], tmp_path: Path) -> None:
    """A graph is published and revoked by its digest, which would not depend on weights that lie elsewhere."""
    other = tmp_path / "other" / GRAPH
    export_denoiser(model_of(tiny_unet(2)), other)
    assert sha256_file(other) != sha256_file(folder / GRAPH)
    graphs = [onnx.load(path, load_external_data=False) for path in (folder / GRAPH, other)]
    assert [sha256_file(folder / DATA) in str(graph.metadata_props) for graph in graphs] == [True, False]
    for graph in graphs:
        del graph.metadata_props[:]
        for tensor in graph.graph.initializer:
            tensor.ClearField("raw_data")  # small ones stay in the graph
    assert graphs[0] == graphs[1], "control: nothing else differs"


def test_a_smaller_export_takes_the_data_of_the_larger_one_away(
    folder: Path, tiny_unet: Callable[..., torch.nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path.name for path in folder.iterdir()}
    monkeypatch.setattr(_onnx_program, "_LARGE_MODEL_THRESHOLD", 1 << 30)
    export_denoiser(model_of(tiny_unet(1)), folder / GRAPH)
    assert before - {path.name for path in folder.iterdir()} == {DATA}
    assert data_file(folder / GRAPH) is None


def test_the_decoder_of_a_latent_model_has_a_file_of_its_own(tiny_unet: Callable[..., torch.nn.Module], tmp_path: Path) -> None:
    model, decoder, path = model_of(tiny_unet(1)), torch.nn.Conv2d(1, 3, 15, padding=7), tmp_path / "vae_decoder.onnx"
    export_decoder(model, decoder, path)
    assert data_file(path) == tmp_path / "vae_decoder.onnx.data"
    latents = torch.randn(2, *model.state_shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted = decoder(latents).numpy()
    assert np.allclose(OnnxDecoder(path)(latents.numpy()), wanted, atol=1e-5)
    (tmp_path / "vae_decoder.onnx.data").unlink()
    with pytest.raises(BadInput, match="cannot be opened"):
        OnnxDecoder(path)


def test_8_bit_weights_of_a_large_graph_have_a_file_of_their_own(folder: Path, tiny_unet: Callable[..., torch.nn.Module], tmp_path: Path) -> None:
    before = {path.name: sha256_file(path) for path in folder.iterdir()}
    (tmp_path / "int8").mkdir()
    quantise(folder / GRAPH, tmp_path / "int8" / "int8.onnx")
    assert {path.name: sha256_file(path) for path in folder.iterdir()} == before
    (row,) = measure_parity(model_of(tiny_unet(1)), OnnxDenoiser(tmp_path / "int8" / "int8.onnx"), (2,), (500,))
    assert LIMIT < row.max_relative_error < 0.5, "rounded, and still the model"


@pytest.mark.parametrize("location", ["../model.onnx.data", "/etc/hostname", "sub/model.onnx.data", "other.data", "model.onnx", ""])
@pytest.mark.parametrize("where", ["weights", "constant"])
def test_a_graph_that_refers_to_another_file_is_refused(folder: Path, location: str, where: str) -> None:
    model = onnx.load(folder / GRAPH, load_external_data=False)
    tensor = next(tensor for tensor in model.graph.initializer if tensor.external_data)
    if where == "constant":  # as in the branch of a loop, or a function
        node = model.graph.node.add(op_type="Constant", output=["unused"])
        node.attribute.add(name="value", type=onnx.AttributeProto.TENSOR).t.CopyFrom(tensor)
        tensor = node.attribute[0].t
    next(entry for entry in tensor.external_data if entry.key == "location").value = location
    onnx.save(model, folder / GRAPH)
    with pytest.raises(BadInput, match=r"may refer to model\.onnx\.data alone"):
        data_file(folder / GRAPH)


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.rename(path.with_name("x")) and path.symlink_to("x")], ids=["missing", "a link"])
def test_a_graph_without_its_data_is_refused(folder: Path, damage: Callable[[Path], None]) -> None:
    assert data_file(folder / GRAPH) == folder / DATA, "control"
    damage(folder / DATA)
    with pytest.raises(BadInput, match="which is not beside it"):
        data_file(folder / GRAPH)


@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(b"no graph"), Path.unlink, lambda path: path.unlink() or path.mkdir()])
def test_what_is_no_graph_is_told(folder: Path, damage: Callable[[Path], None]) -> None:
    assert data_file(folder / GRAPH) == folder / DATA, "control"
    damage(folder / GRAPH)
    with pytest.raises(BadInput, match="is not an ONNX graph that can be read"):
        data_file(folder / GRAPH)


def test_records_of_before_have_the_digests_that_they_had() -> None:
    record = ExportedRecord.read(QUICK / "exported.json")
    assert record.data == ()
    assert b'"data"' not in record.canonical()
    with_data = record.model_copy(update={"data": (Pointer(uri=f"onnx/{DATA}", sha256="7" * 64),)})
    assert with_data.digest() != record.digest(), "control: data count"
