"""The lie: 'the model that was loaded is the model that was named', and 'loading a model only reads it'."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DModel
from safetensors.torch import load_file, save_file

from erasediff.errors import BadInput, IntegrityError
from erasediff.models.families import load_folder
from erasediff.models.families.unet import ClassConditionalUNet
from erasediff.models.folder import load_model, load_named, save_model
from erasediff.models.layout import WEIGHTS
from erasediff.models.process import build_scheduler, squared_cosine
from erasediff.records.config import SamplerConfig
from erasediff.records.core import ModelRecord
from tests.digits import DIGITS
from tests.small_models import model_of


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, tiny_unet) -> tuple[Path, ModelRecord]:
    models = tmp_path_factory.mktemp("models")
    return models, save_model(model_of(tiny_unet()), models, "digits", DIGITS, ("7", "3"))


@pytest.fixture
def folder(saved: tuple[Path, ModelRecord], tmp_path: Path) -> Path:
    """A copy to damage."""
    models, record = saved
    return Path(shutil.copytree(models / record.weights.uri, tmp_path / "model"))


def test_weights_survive_the_disk_bit_for_bit(saved, tiny_unet) -> None:
    models, record = saved
    before, after = tiny_unet().state_dict(), load_model(models, record).network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert (record.classes, record.forgotten) == (10, ("3", "7"))


def test_control_other_weights_are_other_weights(saved, tiny_unet) -> None:
    models, record = saved
    other = save_model(model_of(tiny_unet(1)), models, "digits", DIGITS, ("7", "3"))
    assert other.weights != record.weights
    assert not torch.equal(load_model(models, other).network.conv_in.weight, load_model(models, record).network.conv_in.weight)


def test_saving_twice_names_the_same_folder(saved, tiny_unet) -> None:
    models, record = saved
    assert save_model(model_of(tiny_unet()), models, "digits", DIGITS, ("3", "7")) == record


def test_the_denoiser_loads_in_plain_diffusers(saved) -> None:
    """The folder needs nothing of this package to be read."""
    models, record = saved
    plain = UNet2DModel.from_pretrained(models / record.weights.uri / "unet", use_safetensors=True).eval()
    inputs = torch.randn(2, 1, 8, 8), torch.tensor([3, 900]), torch.tensor([0, 10])
    with torch.no_grad():
        wanted = load_model(models, record).denoiser(*inputs)
        assert torch.equal(plain(inputs[0], inputs[1], class_labels=inputs[2]).sample, wanted)


@pytest.mark.parametrize("scheduler", ["ddim", "dpm-solver++", "unipc"])
def test_the_scheduler_that_is_loaded_is_the_one_that_was_saved(tmp_path: Path, tiny_unet, scheduler) -> None:
    built = build_scheduler(SamplerConfig(scheduler=scheduler), squared_cosine(500))
    record = save_model(ClassConditionalUNet.of(tiny_unet(), built), tmp_path, "digits", DIGITS, ())
    loaded = load_model(tmp_path, record)
    assert type(loaded.scheduler) is type(built)
    assert {**built.config, "_use_default_values": None} == {**loaded.scheduler.config, "_use_default_values": None}
    assert torch.equal(loaded.schedule.alphas_cumprod, built.alphas_cumprod)


class Evil:
    """Unpickling it makes a file: the sign that something was executed."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return (Path.touch, (self.mark,))


@pytest.mark.parametrize("name", ["evil.pt", "unet/diffusion_pytorch_model.bin", "unet/evil.PKL", "scheduler/x.ckpt", str(WEIGHTS)])
def test_a_pickle_is_refused_and_never_executed(folder: Path, tmp_path: Path, name: str) -> None:
    mark = tmp_path / "executed"
    with (folder / name).open("wb") as handle:
        pickle.dump(Evil(mark), handle)
    with pytest.raises(BadInput, match="pickles are never loaded"):
        load_folder(folder)
    assert not mark.exists()
    pickle.loads((folder / name).read_bytes())
    assert mark.exists(), "control: the pickle would have executed"


def edit_json(name: str, **changes: object) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        document = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(document | changes))

    return damage


def edit_tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        change(tensors)
        save_file(tensors, folder / WEIGHTS)

    return damage


UNET, SCHEDULER = "unet/config.json", "scheduler/scheduler_config.json"
DAMAGES = {
    "no weights": (lambda f: (f / WEIGHTS).unlink(), "lacks unet/diffusion"),
    "no unet config": (lambda f: (f / UNET).unlink(), "lacks unet/config.json"),
    "no scheduler": (lambda f: shutil.rmtree(f / "scheduler"), "lacks scheduler/"),
    "no index": (lambda f: (f / "model_index.json").unlink(), "lacks model_index"),
    "no folder": (shutil.rmtree, "does not exist"),
    "torn weights": (lambda f: (f / WEIGHTS).write_bytes((f / WEIGHTS).read_bytes()[:-100]), "not a safetensors file"),
    "empty weights": (lambda f: (f / WEIGHTS).write_bytes(b""), "not a safetensors file"),
    "tensor renamed": (edit_tensors(lambda t: t.update(other=t.pop("conv_in.weight"))), "conv_in.weight and 1 more"),
    "tensor reshaped": (edit_tensors(lambda t: t.update({"conv_in.bias": torch.zeros(9)})), "conv_in.bias and 0 more"),
    "tensor missing": (edit_tensors(lambda t: t.pop("conv_in.bias")), "conv_in.bias"),
    "tensor too many": (edit_tensors(lambda t: t.update(extra=torch.zeros(1))), "extra"),
    "unet config not JSON": (lambda f: (f / UNET).write_text("{"), "is not JSON"),
    "unet config a list": (lambda f: (f / UNET).write_text("[]"), "not a JSON object"),
    "scheduler config not JSON": (lambda f: (f / SCHEDULER).write_bytes(b"\xff\xfe"), "is not JSON"),
    "scheduler unknown": (edit_json(SCHEDULER, _class_name="FlowMatchEulerDiscreteScheduler"), "is not known"),
    "betas unknown": (edit_json(SCHEDULER, beta_schedule="sideways"), "correct its scheduler_config.json"),
    "betas not numbers": (edit_json(SCHEDULER, trained_betas=["a", "b"]), "correct its scheduler_config.json"),
    "betas that take noise away": (edit_json(SCHEDULER, num_train_timesteps=3, trained_betas=[0.1, -0.2, 0.1]), "are no noise schedule"),
    "betas beyond 1": (edit_json(SCHEDULER, beta_schedule="linear", beta_end=2.0), "are no noise schedule"),
    "pure noise and epsilon": (edit_json(SCHEDULER, rescale_betas_zero_snr=True), "zero terminal SNR"),
    "predicts images": (edit_json(SCHEDULER, prediction_type="sample"), "predicts epsilon or v_prediction"),
    "size unknown": (edit_json(UNET, sample_size=None), "how large its images are"),
    "size of three sides": (edit_json(UNET, sample_size=[8, 8, 8]), "how large its images are"),
    "learned variance": (edit_json(UNET, out_channels=2), "images of other channels"),
    "not a number": (edit_tensors(lambda t: t["conv_in.bias"].fill_(float("nan"))), "not finite"),
    "scheduler unnamed": (edit_json(SCHEDULER, _class_name=None), "is not known"),
    "other denoiser": (edit_json(UNET, _class_name="UNet3DConditionModel"), "not a class-conditional"),
    "no classes": (edit_json(UNET, num_class_embeds=None), "not a class-conditional"),
    "other width": (edit_json(UNET, block_out_channels=[8, 24]), "do not match its config"),
    "impossible width": (edit_json(UNET, block_out_channels=[8, 18]), "describes no UNet2DModel"),
    "unknown block": (edit_json(UNET, down_block_types=["DownBlock2D", "Evil"]), "describes no UNet2DModel"),
    "layers in words": (edit_json(UNET, layers_per_block="two"), "describes no UNet2DModel"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_folder_is_refused_with_one_sentence(folder: Path, name: str) -> None:
    damage, part = DAMAGES[name]
    damage(folder)
    with pytest.raises(BadInput, match=r"^[^\n]*\.$") as error:
        load_folder(folder)
    assert part in str(error.value)


def test_control_an_undamaged_folder_loads(folder: Path) -> None:
    assert load_folder(folder).conditions == 10
    edit_json(UNET, sample_size=[8, 8])(folder)
    assert load_folder(folder).image_shape == (1, 8, 8), "both sides may be given"


def test_a_run_samples_by_its_own_solver_on_the_models_own_schedule(folder: Path) -> None:
    """What is measured is what is served, whatever scheduler the folder came with. Without a run, one that needs fresh noise is not used either."""
    edit_json(SCHEDULER, _class_name="DDPMScheduler", beta_schedule="linear", clip_sample=True)(folder)
    model = load_folder(folder)
    run = model.sampled_by(SamplerConfig(scheduler="unipc"))
    assert type(run.scheduler).__name__ == "UniPCMultistepScheduler"
    linear = torch.linspace(1e-4, 0.02, 1000)
    for schedule in (model.schedule, run.schedule):
        assert torch.allclose(schedule.alphas_cumprod, (1 - linear).cumprod(0))
    labels, seeds = torch.arange(3), [1, 2, 3]
    assert torch.equal(model.sample(labels, seeds, 4), model.sample(labels, seeds, 4)), "an image is its seed's"
    assert torch.equal(model.sample(labels, seeds, 4), model.sampled_by(SamplerConfig()).sample(labels, seeds, 4))
    assert not torch.equal(model.sample(labels, seeds, 4), run.sample(labels, seeds, 4)), "control"


def test_weights_that_are_not_the_named_ones_are_refused(saved, folder: Path) -> None:
    """One changed value is enough."""
    _, record = saved
    load_named(folder, record.weights.sha256)

    def nudge(tensors: dict[str, torch.Tensor]) -> None:
        tensors["conv_in.bias"][0] = torch.nextafter(tensors["conv_in.bias"][0], torch.tensor(9.0))

    edit_tensors(nudge)(folder)
    with pytest.raises(IntegrityError, match="fetch the model again"):
        load_named(folder, record.weights.sha256)
    load_folder(folder)  # control: without a name there is nothing to compare with
