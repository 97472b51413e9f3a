"""The lies: 'the folder was only read', 'this is the model that was named', 'plain diffusers reads what was saved'."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from safetensors.torch import save_file

from erasediff.errors import BadInput, IntegrityError
from erasediff.files import publish_folder
from erasediff.models.concepts import CONDITIONS, RECORD, read_forgotten, same_rows, write_forgotten
from erasediff.models.families.stable_diffusion import StableDiffusion
from erasediff.models.layout import WEIGHTS
from erasediff.models.process import schedule_of
from erasediff.steps.sample import sample_to_png
from tests.stable_diffusion import BLUE, CAT, GREEN, LATENT, LENGTH, RED, SIZE, images_of, state, write_model

PROMPTS = ["", RED, BLUE, CAT, GREEN, "a", "b", "c", "d", "e"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("sd") / "model")


@pytest.fixture(scope="module")
def model(saved: Path) -> StableDiffusion:
    return StableDiffusion.load(saved)


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(saved, tmp_path / "model"))


def test_what_is_loaded_is_what_plain_diffusers_loads(saved: Path, model: StableDiffusion) -> None:
    plain = StableDiffusionPipeline.from_pretrained(saved, local_files_only=True)
    for name in ("unet", "vae", "text_encoder"):
        ours, theirs = getattr(model.pipeline, name).state_dict(), getattr(plain, name).state_dict()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert type(model.pipeline.scheduler) is type(plain.scheduler)
    assert model.image_shape == (3, SIZE, SIZE)
    assert not any(p.requires_grad for p in model.pipeline.unet.parameters())


def test_prompts_become_the_rows_that_the_pipeline_samples_with(model: StableDiffusion) -> None:
    """More prompts than one batch holds; the tokenizer is real, so words differ and case does not."""
    rows = model.encode_prompts(PROMPTS)
    assert (rows.shape, rows.dtype) == ((len(PROMPTS), LENGTH, 16), torch.float32)
    assert not rows.requires_grad
    for index in (0, 3, 9):
        alone = model.pipeline.encode_prompt(PROMPTS[index], "cpu", 1, False)[0][0]
        torch.testing.assert_close(rows[index], alone)
    assert same_rows(rows, rows).equal(torch.eye(len(PROMPTS), dtype=torch.bool))
    assert bool(same_rows(model.encode_prompts(["A  Red SQUARE"]), rows[1:2])), "one prompt to the tokenizer"
    tokens = model.pipeline.tokenizer(RED).input_ids
    assert model.pipeline.tokenizer.convert_ids_to_tokens(tokens)[1:3] == ["a</w>", "red</w>"], "control: the merges are used"


def test_a_prompt_that_is_too_long_is_cut_and_not_logged(model: StableDiffusion, caplog: pytest.LogCaptureFixture) -> None:
    """It may name a person; diffusers would quote its end in a warning."""
    rows = model.encode_prompts(["red " * 30, "red " * 30 + "secret"])
    assert bool(same_rows(rows[:1], rows[1:]))
    assert "secret" not in caplog.text


def test_images_become_means_times_the_scaling_factor(model: StableDiffusion) -> None:
    images, _ = images_of([RED, BLUE], 6)
    done: list[int] = []
    latents = model.autoencoder.encode(images, done.append)
    assert (latents.shape, latents.dtype) == ((12, 4, LATENT, LATENT), torch.float32)
    assert done == [8, 12]
    assert latents.is_contiguous(), "torch 2.13 crashes on latents with channels last, see Autoencoder.encode"
    with torch.no_grad():
        wanted = model.pipeline.vae.encode(images[9:10].permute(0, 3, 1, 2).float() / 127.5 - 1).latent_dist.mean * 0.5
    torch.testing.assert_close(latents[9:10], wanted, rtol=1e-4, atol=1e-5)
    assert torch.equal(latents, model.encode(images)), "nothing is drawn"
    assert not torch.equal(latents[0], latents[6]), "control"


def test_the_denoiser_looks_prompts_up_by_row(model: StableDiffusion) -> None:
    rows = model.encode_prompts(PROMPTS)
    noised, timesteps, labels = torch.randn(3, 4, LATENT, LATENT), torch.tensor([5, 500, 900]), torch.tensor([2, 0, 1])
    with torch.no_grad():
        predicted = model.asked_by(rows).denoiser(noised, timesteps, labels)
        wanted = model.pipeline.unet(noised, timesteps, encoder_hidden_states=torch.stack([rows[2], rows[0], rows[1]])).sample
        other = model.asked_by(rows).denoiser(noised, timesteps, torch.tensor([2, 0, 3]))
    assert predicted.shape == noised.shape
    assert torch.equal(predicted, wanted)
    assert not torch.equal(predicted, other), "control: the prompt matters"


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_the_goal_is_diffusers_own(tmp_path: Path, prediction_type: str) -> None:
    """v and x_t against get_velocity and add_noise of a scheduler of diffusers."""
    schedule = StableDiffusion.load(write_model(tmp_path / "m", prediction_type, "DDIMScheduler")).schedule
    plain = DDIMScheduler.from_pretrained(tmp_path / "m/scheduler")
    clean, noise, timesteps = torch.randn(4, 4, 8, 8), torch.randn(4, 4, 8, 8), torch.tensor([0, 300, 700, 999])
    torch.testing.assert_close(schedule.add_noise(clean, noise, timesteps), plain.add_noise(clean, noise, timesteps))
    velocity = plain.get_velocity(clean, noise, timesteps)
    wanted = {"epsilon": noise, "v_prediction": velocity}[prediction_type]
    torch.testing.assert_close(schedule.goal(clean, noise, timesteps), wanted)
    assert not torch.allclose(noise, velocity), "control: the two goals differ"
    assert schedule_of(plain).prediction_type == prediction_type


def erased(model: StableDiffusion, out: Path) -> torch.nn.Module:
    """Save the model with every weight of its UNet doubled."""
    import copy

    unet = copy.deepcopy(model.pipeline.unet)
    with torch.no_grad():
        for parameter in unet.parameters():
            parameter.mul_(2)

    def fill(folder: Path) -> str:
        model.with_network(unet).save(folder)
        (folder / "note").write_text("x")
        return out.name

    publish_folder(out.parent, fill)
    return unet


def test_what_is_saved_loads_in_plain_diffusers_with_the_new_unet_alone(folder: Path, tmp_path: Path) -> None:
    """Stale weights of the UNet in another file would be the model before the erasure."""
    shutil.copyfile(folder / WEIGHTS, folder / "unet/diffusion_pytorch_model.fp16.safetensors")
    shutil.copyfile(folder / WEIGHTS, folder / "v1-5-pruned.safetensors")
    unet = erased(StableDiffusion.load(folder), tmp_path / "out")
    plain = StableDiffusionPipeline.from_pretrained(tmp_path / "out", local_files_only=True)
    before = StableDiffusion.load(folder).pipeline
    assert all(torch.equal(a, b) for a, b in zip(plain.unet.parameters(), unet.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(plain.vae.parameters(), before.vae.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(plain.text_encoder.parameters(), before.text_encoder.parameters(), strict=True))
    assert sorted(p.name for p in (tmp_path / "out/unet").iterdir()) == ["config.json", WEIGHTS.name]
    assert sorted(p.name for p in (tmp_path / "out").iterdir() if p.is_file()) == ["model_index.json", "note"]
    stale = state(folder)
    assert not any(torch.equal(stale[name], value) for name, value in state(tmp_path / "out").items() if value.any())


def test_a_safety_checker_is_carried_along(folder: Path, tmp_path: Path) -> None:
    index = json.loads((folder / "model_index.json").read_text())
    index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    (folder / "model_index.json").write_text(json.dumps(index))
    (folder / "safety_checker").mkdir()
    (folder / "safety_checker/model.safetensors").write_bytes(b"as it is")
    erased(StableDiffusion.load(folder), tmp_path / "out")
    assert (tmp_path / "out/safety_checker/model.safetensors").read_bytes() == b"as it is"


def test_a_save_that_fails_leaves_nothing(model: StableDiffusion, tmp_path: Path) -> None:
    seen: list[bool] = []

    def fail(folder: Path) -> str:
        model.save(folder)
        seen.append((folder / WEIGHTS).is_file() and not (tmp_path / "parent/out").exists())
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        publish_folder(tmp_path / "parent", fail)
    assert seen == [True], "control: everything was written by then, under another name"
    assert list((tmp_path / "parent").iterdir()) == []


def edit(name: str, **changes: object) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        document = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(document | changes))

    return damage


def edit_tensors(name: str, change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        tensors = state(folder, name)
        change(tensors)
        save_file(tensors, folder / name, {"format": "pt"})

    return damage


INDEX, UNET, SCHEDULER = "model_index.json", "unet/config.json", "scheduler/scheduler_config.json"
TEXT, VAE = "text_encoder/model.safetensors", "vae/diffusion_pytorch_model.safetensors"
DAMAGES = {
    "no folder": (shutil.rmtree, "does not exist"),
    "no vae": (lambda f: shutil.rmtree(f / "vae"), "lacks vae/"),
    "no text encoder": (lambda f: shutil.rmtree(f / "text_encoder"), "lacks text_encoder/"),
    "no tokenizer": (lambda f: shutil.rmtree(f / "tokenizer"), "lacks tokenizer/"),
    "no vocabulary": (lambda f: [p.unlink() for p in (f / "tokenizer").iterdir() if p.name != "tokenizer_config.json"], "tokenizer"),
    "no unet weights": (lambda f: (f / WEIGHTS).unlink(), "lacks unet/diffusion"),
    "no scheduler": (lambda f: shutil.rmtree(f / "scheduler"), "lacks scheduler/"),
    "component not named": (edit(INDEX, vae=[None, None]), "names no vae"),
    "component unknown": (edit(INDEX, controlnet=["diffusers", "ControlNetModel"]), "controlnet"),
    "component of another class": (edit(INDEX, text_encoder=["transformers", "T5EncoderModel"]), "T5EncoderModel"),
    "component outside": (edit(INDEX, **{"../other": ["diffusers", "AutoencoderKL"]}), "../other"),
    "checker not there": (edit(INDEX, safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"]), "lacks safety_checker"),
    "other pipeline": (edit(INDEX, _class_name="StableDiffusionXLPipeline"), "does not describe"),
    "index not JSON": (lambda f: (f / INDEX).write_text("{"), "is not JSON"),
    "index of other shape": (edit(INDEX, unet=["diffusers"]), "does not describe"),
    "unet of another class": (edit(UNET, _class_name="UNet3DConditionModel"), "not a UNet2DConditionModel"),
    "unet with classes": (edit(UNET, class_embed_type="identity"), "class_embed_type"),
    "unet for inpainting": (edit(UNET, in_channels=9), "unet"),
    "unet of other width": (edit(UNET, block_out_channels=[16, 48]), "unet"),
    "unet of other embeddings": (edit(UNET, cross_attention_dim=24), "unet"),
    "unet in words": (edit(UNET, layers_per_block="two"), "cannot be loaded"),
    "tensor renamed": (edit_tensors(str(WEIGHTS), lambda t: t.update(other=t.pop("conv_in.weight"))), "conv_in.weight"),
    "tensor missing": (edit_tensors(str(WEIGHTS), lambda t: t.pop("conv_in.bias")), "conv_in.bias"),
    "tensor missing in the vae": (edit_tensors(VAE, lambda t: t.pop("quant_conv.bias")), "quant_conv.bias"),
    "tensor missing in the text encoder": (edit_tensors(TEXT, lambda t: t.pop(sorted(t)[0])), "the text_encoder of"),
    "torn weights": (lambda f: (f / WEIGHTS).write_bytes((f / WEIGHTS).read_bytes()[:-100]), "cannot be loaded"),
    "prompts too long": (edit("tokenizer/tokenizer_config.json", model_max_length=77), "longer prompts"),
    "scheduler unknown": (edit(SCHEDULER, _class_name="Evil"), "is not known"),
    "scheduler no class of diffusers": (edit(SCHEDULER, _class_name="__doc__"), "is not known"),
    "scheduler without alphas": (edit(SCHEDULER, _class_name="FlowMatchEulerDiscreteScheduler"), "alphas_cumprod"),
    "other prediction type": (edit(SCHEDULER, _class_name="DDIMScheduler", prediction_type="sample"), "prediction type 'sample'"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_folder_is_refused_with_one_sentence(folder: Path, name: str) -> None:
    damage, part = DAMAGES[name]
    damage(folder)
    with pytest.raises(BadInput, match=r"^[^\n]*\.$") as error:
        StableDiffusion.load(folder)
    assert part in str(error.value)


def test_control_an_undamaged_folder_loads(folder: Path) -> None:
    assert StableDiffusion.load(folder).image_shape == (3, SIZE, SIZE)


class Evil:
    """Unpickling it makes a file: the sign that something was executed."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return (Path.touch, (self.mark,))


@pytest.mark.parametrize("name", ["unet/diffusion_pytorch_model.bin", "text_encoder/pytorch_model.bin", "v1-5.ckpt", str(WEIGHTS), TEXT, VAE])
def test_a_pickle_is_refused_and_never_executed(folder: Path, tmp_path: Path, name: str) -> None:
    mark = tmp_path / "executed"
    (folder / name).write_bytes(pickle.dumps(Evil(mark)))
    with pytest.raises(BadInput, match=r"^[^\n]*\.$"):
        StableDiffusion.load(folder)
    assert not mark.exists()
    pickle.loads((folder / name).read_bytes())
    assert mark.exists(), "control: the pickle would have executed"


def test_a_folder_remembers_what_it_has_forgotten_as_embeddings(folder: Path) -> None:
    assert read_forgotten(folder) is None, "control: nothing was erased"
    rows = StableDiffusion.load(folder).encode_prompts([RED, CAT])
    record = write_forgotten(folder, rows, ("a" * 64,))
    found = read_forgotten(folder)
    assert found is not None
    assert found.record == record
    assert torch.equal(found.embeddings, rows)
    text = (folder / RECORD).read_bytes() + (folder / CONDITIONS).read_bytes()
    assert b"red" not in text.lower()
    StableDiffusion.load(folder)


@pytest.mark.parametrize("name", [RECORD, CONDITIONS])
def test_half_a_memory_is_refused(folder: Path, name: str) -> None:
    """A folder that lost its record would let the next erasure bring the first prompt back."""
    write_forgotten(folder, torch.zeros(1, LENGTH, 16), ("a" * 64,))
    (folder / name).unlink()
    with pytest.raises(BadInput, match="but not its second file"):
        read_forgotten(folder)


def test_a_memory_of_other_rows_or_of_another_encoder_is_refused(folder: Path) -> None:
    write_forgotten(folder, torch.zeros(1, LENGTH, 16), ("a" * 64,))
    good = (folder / CONDITIONS).read_bytes()
    save_file({"embeddings": torch.ones(1, LENGTH, 16)}, folder / CONDITIONS)
    with pytest.raises(IntegrityError, match="not the file"):
        read_forgotten(folder)
    (folder / CONDITIONS).write_bytes(good)
    assert read_forgotten(folder) is not None, "control"
    edit_tensors(TEXT, lambda t: next(iter(t.values())).add_(1))(folder)
    with pytest.raises(IntegrityError, match="text encoder"):
        read_forgotten(folder)


def test_a_model_of_prompts_has_no_classes_to_sample(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="is asked by prompts and has no classes"):
        sample_to_png(str(saved), "0", tmp_path / "out.png", 1, 1, None, 0, tmp_path / "work")
