"""The lie: 'bring your own model', of a folder that is read as another model, or that is registered and cannot be erased from."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from erasediff.attempts.workdir import Workdir
from erasediff.cli import main
from erasediff.data.datasets import load_dataset
from erasediff.errors import BadInput
from erasediff.models.bring import bring
from erasediff.models.families import load_folder
from erasediff.records.config import DatasetConfig
from erasediff.steps.import_base import check_fits
from erasediff.tracking import CHAMPION, Tracking
from tests.e2e.numbers import QUICK

WEIGHTS, INDEX = "diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.safetensors.index.json"
OPTIONS = ("--config", QUICK / "config.yaml", "--policy", QUICK / "policy.yaml")
LABELS = torch.arange(10)


@pytest.fixture(scope="module")
def trained(with_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the base that the pipeline trained; a copy."""
    (folder,) = (with_base / "models").iterdir()
    return Path(shutil.copytree(folder, tmp_path_factory.mktemp("elsewhere") / "model"))


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def in_shards(folder: Path) -> None:
    load_folder(folder).network.save_pretrained(folder / "sharded", max_shard_size="100KB")
    shutil.rmtree(folder / "unet")
    (folder / "sharded").rename(folder / "unet")
    assert (folder / "unet" / INDEX).is_file()


def of_one_variant(folder: Path) -> None:
    (folder / "unet" / WEIGHTS).rename(folder / "unet/diffusion_pytorch_model.non_ema.safetensors")


def averaged(folder: Path) -> None:
    shutil.copytree(folder / "unet", folder / "unet_ema")
    raw = load_file(folder / "unet" / WEIGHTS)
    save_file({name: value + 1 for name, value in raw.items()}, folder / "unet" / WEIGHTS)


def without_an_index(folder: Path) -> None:
    (folder / "model_index.json").unlink()


def alone(folder: Path) -> None:
    """A ``UNet2DModel`` with its scheduler's file beside it."""
    for path in (folder / "unet").iterdir():
        path.rename(folder / path.name)
    (folder / "scheduler/scheduler_config.json").rename(folder / "scheduler_config.json")
    (folder / "model_index.json").unlink()


def of_ddpm(folder: Path) -> None:
    edit(folder / "scheduler/scheduler_config.json", _class_name="DDPMScheduler")


def with_a_pickle_beside(folder: Path) -> None:
    (folder / "unet/diffusion_pytorch_model.bin").write_bytes(b"never loaded")


def one_file(folder: Path) -> None:
    """Weights, config and scheduler beside each other; what is handed in is the file of weights."""
    alone(folder)
    (folder / WEIGHTS).rename(folder / "digits.safetensors")


FORMS = (one_file, in_shards, of_one_variant, averaged, without_an_index, alone, of_ddpm, with_a_pickle_beside)


@pytest.mark.parametrize("form", FORMS)
def test_the_same_model_in_another_form_is_the_same_model(trained: Path, tmp_path: Path, form: Callable[[Path], None]) -> None:
    """By its images. Control: another model makes others."""
    folder = Path(shutil.copytree(trained, tmp_path / "model"))
    form(folder)
    wanted = load_folder(trained)
    source = next(folder.glob("digits.safetensors"), folder)
    assert torch.equal(bring(source, 10).model.sample(LABELS, [*range(10)], 4), wanted.sample(LABELS, [*range(10)], 4))
    assert bool(bring(source, 10).notes) is (form in (of_one_variant, averaged)), "what was chosen is told"
    assert not torch.equal(wanted.sample(LABELS, [*range(1, 11)], 4), wanted.sample(LABELS, [*range(10)], 4)), "control"


def test_half_precision_is_read_in_full(trained: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(trained, tmp_path / "model"))
    half = {name: value.half() for name, value in load_file(folder / "unet" / WEIGHTS).items()}
    save_file(half, folder / "unet/diffusion_pytorch_model.fp16.safetensors")
    (folder / "unet" / WEIGHTS).unlink()
    found = bring(folder, 10).model.network.state_dict()
    assert all(torch.equal(found[name], value.float()) for name, value in half.items())


def lose(*names: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return damage


def as_pickle(folder: Path) -> None:
    (folder / "unet" / WEIGHTS).rename(folder / "unet/diffusion_pytorch_model.bin")


def two_variants(folder: Path) -> None:
    shutil.copy(folder / "unet" / WEIGHTS, folder / "unet/diffusion_pytorch_model.a.safetensors")
    (folder / "unet" / WEIGHTS).rename(folder / "unet/diffusion_pytorch_model.b.safetensors")


def lost_shard(folder: Path) -> None:
    in_shards(folder)
    next(iter(sorted((folder / "unet").glob("*00002*")))).unlink()


def shard_elsewhere(folder: Path) -> None:
    in_shards(folder)
    edit(folder / "unet" / INDEX, weight_map={"conv_in.weight": "../../x.safetensors"})


def adapter(folder: Path) -> None:
    (folder / "pytorch_lora_weights.safetensors").write_bytes(b"")


def unconditional(folder: Path) -> None:
    edit(folder / "unet/config.json", num_class_embeds=None)


DAMAGES = {
    "no denoiser": (lose("unet/config.json"), "no unet/config.json"),
    "no weights": (lose(f"unet/{WEIGHTS}"), "no weights"),
    "no scheduler": (lose("scheduler/scheduler_config.json"), "no scheduler/scheduler_config.json"),
    "a pickle": (as_pickle, "pickles, which are never loaded"),
    "two variants": (two_variants, "2 variants"),
    "a lost shard": (lost_shard, "which its index names"),
    "a shard elsewhere": (shard_elsewhere, "names no shards"),
    "an adapter": (adapter, "merge it into its base"),
    "no classes": (unconditional, "unconditional"),
    "no folder": (shutil.rmtree, "does not exist"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_what_is_no_such_model_is_refused_with_one_sentence(trained: Path, tmp_path: Path, name: str) -> None:
    folder = Path(shutil.copytree(trained, tmp_path / "model"))
    damage, part = DAMAGES[name]
    damage(folder)
    with pytest.raises(BadInput, match=r"^[^\n]*\.$") as refused:
        bring(folder, 10)
    assert part in str(refused.value)


@pytest.fixture(scope="module")
def imported(trained: Path, with_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Workdir:
    """A workdir with that model as its base, from a folder in shards."""
    here = tmp_path_factory.mktemp("imported")
    folder = Path(shutil.copytree(trained, here / "model"))
    in_shards(folder)
    command = ["import-base", folder, *OPTIONS, "--workdir", here / "work", "--sheet", here / "sheet.png"]
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        assert main([str(part) for part in command]) == 0
    return Workdir(here / "work")


def test_an_imported_base_is_the_trained_one_to_the_last_weight(imported: Workdir, with_base: Path) -> None:
    """So an erasure from it gives the same weights. The sheet has eight samples of each class."""
    (found,), (wanted,) = imported.models.iterdir(), (with_base / "models").iterdir()
    assert found.name == wanted.name, "a folder is named by the digest of its weights"
    assert Image.open(imported.root.parent / "sheet.png").size == (8 * 8, 10 * 8)


def test_a_run_begins_with_an_imported_base(imported: Workdir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without base_training: nothing is trained. Control: in an empty workdir the same command ends."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    config = tmp_path / "config.yaml"
    config.write_text((QUICK / "config.yaml").read_text().replace("base_training:", "base_training: null\n#"))
    opening = ("check-prerequisites", "--config", config, "--policy", QUICK / "policy.yaml", "--forget-label", "0", "--workdir")
    assert main([str(part) for part in (*opening, imported.root)]) == 0
    assert main(["train-base", "--workdir", str(imported.root)]) == 0
    assert main([str(part) for part in (*opening, tmp_path / "empty")]) == 2, "control"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda folder: save_file({n: torch.zeros_like(v) for n, v in load_file(folder).items()}, folder), "does not make"),
        (None, "has a champion of 'digits' already"),
    ],
    ids=["makes nothing", "again"],
)
def test_a_base_that_cannot_be_erased_from_is_not_registered(
    trained: Path, imported: Workdir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], change, says: str
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder, work = Path(shutil.copytree(trained, tmp_path / "model")), imported.root
    if change is not None:
        change(folder / "unet" / WEIGHTS)
        work = tmp_path / "work"
        shutil.copytree(imported.detectors, work / "detectors")
    assert main([str(part) for part in ("import-base", folder, *OPTIONS, "--workdir", work)]) == 2
    assert says in capsys.readouterr().err.splitlines()[-1]
    if change is not None:
        assert not (work / "models").exists()


def test_a_model_has_its_own_order_of_classes(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Controls: in the dataset's order, and by a list of other classes, it is refused."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder, order = Path(shutil.copytree(trained, tmp_path / "model")), [7, 3, 0, 9, 1, 2, 8, 4, 6, 5]
    tensors = load_file(folder / "unet" / WEIGHTS)
    tensors["class_embedding.weight"] = tensors["class_embedding.weight"][[*order, 10]].contiguous()
    save_file(tensors, folder / "unet" / WEIGHTS)
    command = ["import-base", folder, *OPTIONS, "--workdir", tmp_path / "work"]
    assert main([str(part) for part in command]) == 2
    assert "in the order of --classes" in capsys.readouterr().err.splitlines()[-1]
    listed = tmp_path / "classes.txt"
    listed.write_text("".join(f"{label}\n" for label in range(9)) + "nine\n")
    assert main([str(part) for part in (*command, "--classes", listed)]) == 2
    assert "the dataset lacks nine and the model lacks 9" in capsys.readouterr().err.splitlines()[-1]
    listed.write_text("".join(f"{label}\n" for label in order), encoding="utf-8-sig")  # as Windows writes it
    assert main([str(part) for part in (*command, "--classes", listed)]) == 0
    tracking = Tracking(tmp_path / "work")
    assert tracking.recorded_model(tracking.alias("digits", CHAMPION)).class_names == tuple(map(str, order))


def test_a_model_of_other_classes_or_images_is_refused(trained: Path) -> None:
    digits = load_dataset(DatasetConfig())
    check_fits(bring(trained, 10).model, digits, str(trained))  # control
    with pytest.raises(BadInput, match="has 11 class embeddings, and 5 classes are named"):
        bring(trained, 5)
    for images, says in ((digits.images[:].repeat(2, 1), "of 8x8 pixels"), (digits.images[:].repeat(3, 3), "1 channels")):
        with pytest.raises(BadInput, match=says):
            check_fits(bring(trained, 10).model, replace(digits, images=images), str(trained))


def test_a_model_with_a_row_for_each_class_alone_has_no_null_row(trained: Path, tmp_path: Path) -> None:
    """It is not taken for one of fewer classes; the folder that is saved says it. Control: with one class fewer the last row is the null row."""
    without = bring(trained, 11).model
    assert (without.conditions, without.null_row) == (11, None)
    without.save(tmp_path / "saved")
    assert load_folder(tmp_path / "saved").null_row is None
    with pytest.raises(BadInput, match=r"set sampler\.guidance_scale to 1"):
        without.sample(LABELS, [*range(10)], 4, guidance_scale=2.0)
    assert load_folder(trained).null_row == bring(trained, 10).model.null_row == 10, "control"
