"""The lie: 'what is wrong with your model is told', of a config with a wrong value that ends in a traceback, or takes all memory."""

from __future__ import annotations

import contextlib
import json
import re
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, DDPMScheduler, DiTPipeline, DiTTransformer2DModel, PNDMScheduler, UNet2DModel
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from erasediff.errors import BadInput
from erasediff.models.bring import Brought, bring
from erasediff.models.configs import check_config
from erasediff.models.layout import INDEX, PART_WEIGHTS, WEIGHTS
from erasediff.models.pipelines import FORGOTTEN, NAMES, classes_named, open_pipeline
from erasediff.models.process import SCHEDULERS, read_scheduler
from erasediff.records.config import SamplerConfig

UNET, SCHEDULER, TRANSFORMER, VAE = "unet/config.json", "scheduler/scheduler_config.json", "transformer/config.json", "vae/config.json"
CLASSES = 3


@pytest.fixture(scope="module")
def unet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As somebody else saves it, with the scheduler that trained it."""
    folder = tmp_path_factory.mktemp("unet")
    blocks = {"down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D"), "block_out_channels": (4, 8)}
    sizes = {"sample_size": 8, "in_channels": 1, "out_channels": 1, "layers_per_block": 1, "norm_num_groups": 4, "num_class_embeds": CLASSES + 1}
    UNet2DModel(**blocks, **sizes).save_pretrained(folder / "unet")
    DDPMScheduler().save_pretrained(folder / "scheduler")
    return folder


@pytest.fixture(scope="module")
def dit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dit")
    sizes = {"num_attention_heads": 2, "attention_head_dim": 8, "in_channels": 4, "out_channels": 8, "num_layers": 1, "patch_size": 2}
    transformer = DiTTransformer2DModel(**sizes, sample_size=4, num_embeds_ada_norm=CLASSES, norm_num_groups=1)
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2, "block_out_channels": (4, 4)}
    vae = AutoencoderKL(**blocks, latent_channels=4, norm_num_groups=2, sample_size=8, in_channels=3, out_channels=3)
    DiTPipeline(transformer, vae, DDIMScheduler()).save_pretrained(folder)
    return folder


def set_value(path: Path, name: str, value: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))


def brought_or_refused(folder: Path) -> Brought | str:
    """A model that makes an image, or the sentence that refuses it; any other exception is the test's."""
    try:
        brought = bring(folder, CLASSES)
        images = brought.model.sampled_by(SamplerConfig()).sample(torch.arange(CLASSES), [0] * CLASSES, 2)
    except BadInput as error:
        sentence = str(error)
        assert sentence.endswith("."), sentence
        assert "\n" not in sentence, sentence
        assert len(sentence) < 1000
        return sentence
    assert len(images) == CLASSES
    return brought


NUMBERS = st.integers(-3, 40) | st.sampled_from([2**31, 10**9, 10**12, -(10**9), 10**400, 1e308, 0.5, 1.5]) | st.floats()
WORDS = st.text(max_size=4) | st.sampled_from(["linear", "sigmoid", "exp", "sample", "Evil", "DownBlock2D", "a"])
SCALARS = st.none() | st.booleans() | NUMBERS | WORDS
VALUES = SCALARS | st.lists(SCALARS, max_size=3) | st.lists(NUMBERS, max_size=3) | st.dictionaries(st.text(max_size=2), SCALARS, max_size=2)


@pytest.mark.parametrize(("family", "file"), [("unet", UNET), ("unet", SCHEDULER), ("dit", TRANSFORMER), ("dit", VAE)])
@given(data=st.data())
def test_any_value_of_a_config_is_refused_with_a_sentence_or_makes_a_model(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, family: str, file: str, data: st.DataObject
) -> None:
    folder = Path(shutil.copytree(request.getfixturevalue(family), tmp_path_factory.mktemp("changed") / "model"))
    name = data.draw(st.sampled_from(sorted(json.loads((folder / file).read_text()))))
    set_value(folder / file, name, data.draw(VALUES))
    brought_or_refused(folder)
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def named(unet: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the names of its classes in its index."""
    folder = tmp_path_factory.mktemp("named") / "model"
    open_pipeline(unet, ["a", "b", "c"]).save_pretrained(folder)
    assert list(open_pipeline(folder, None).config[NAMES].values()) == ["a", "b", "c"], "control"
    return folder


@given(
    name=st.sampled_from(["_class_name", "null_label", NAMES, FORGOTTEN]), value=VALUES | st.dictionaries(st.sampled_from(["0", "1", "x"]), SCALARS)
)
def test_any_value_of_an_index_is_refused_with_a_sentence_or_makes_a_pipeline(
    named: Path, tmp_path_factory: pytest.TempPathFactory, name: str, value: object
) -> None:
    folder = Path(shutil.copytree(named, tmp_path_factory.mktemp("changed") / "model"))
    set_value(folder / INDEX, name, value)
    for read in (lambda: open_pipeline(folder, None), lambda: classes_named(folder, CLASSES)):
        with contextlib.suppress(BadInput):
            read()
    shutil.rmtree(folder)


@pytest.mark.parametrize("family", ["unet", "dit"])
def test_control_the_models_as_they_are_saved_are_brought(request: pytest.FixtureRequest, family: str) -> None:
    assert isinstance(brought_or_refused(request.getfixturevalue(family)), Brought)


WRONG: list[tuple[str, str, object, str]] = [
    (SCHEDULER, "beta_schedule", "sigmoid", "beta_schedule 'sigmoid' is not known: use linear"),
    (SCHEDULER, "num_train_timesteps", 0, "0 training timesteps|cannot be made"),
    (SCHEDULER, "num_train_timesteps", 1, "has 1 betas for 1 training timesteps"),
    (SCHEDULER, "num_train_timesteps", -5, "cannot be made"),
    (SCHEDULER, "num_train_timesteps", "many", "num_train_timesteps is 'many', and has to be a valid integer"),
    (SCHEDULER, "num_train_timesteps", 10**12, "num_train_timesteps is 1000000000000, more than"),
    (SCHEDULER, "num_train_timesteps", 10_001, "goes up to 10000"),
    (SCHEDULER, "trained_betas", [], "has 0 betas for 1000 training timesteps"),
    (SCHEDULER, "trained_betas", [0.1, 0.2], "has 2 betas for 1000 training timesteps"),
    (SCHEDULER, "trained_betas", [float("nan")] * 1000, "trained_betas is .*, and has to be finite"),
    (SCHEDULER, "trained_betas", ["a"] * 1000, "has to be a valid number"),
    (UNET, "num_class_embeds", -4, "describes no UNet2DModel"),
    (UNET, "num_class_embeds", "four", "num_class_embeds is 'four', and has to be a valid integer"),
    (UNET, "class_embed_type", "timestep", "embeds its classes by class_embed_type 'timestep': hand in one with a table"),
    (UNET, "dropout", float("nan"), "dropout is nan, and has to be finite"),
    (UNET, "freq_shift", "a", "freq_shift is 'a', and has to be a valid integer"),
    (UNET, "downsample_padding", 3, "describes no UNet2DModel"),
    (UNET, "out_channels", 2, "images of other channels"),
    (UNET, "layers_per_block", 10**6, "more than 1024 layers"),
    (UNET, "sample_size", 10**5, "sides go up to 512"),
    (TRANSFORMER, "sample_size", 10**5, "sides go up to 512"),
    (TRANSFORMER, "num_layers", 10**6, "more than 1024 layers"),
    (VAE, "scaling_factor", "a", "scaling_factor is 'a'"),
    (VAE, "scaling_factor", 0, "scaling_factor is 0"),
    (VAE, "layers_per_block", 10**6, "more than 1024 layers"),
    (VAE, "norm_num_groups", -1, "describes no AutoencoderKL"),
    (VAE, "in_channels", 1, "describes no AutoencoderKL"),
]


@pytest.mark.parametrize(("file", "name", "value", "says"), WRONG)
def test_a_wrong_value_is_told(request: pytest.FixtureRequest, tmp_path: Path, file: str, name: str, value: object, says: str) -> None:
    family = "dit" if file in (TRANSFORMER, VAE) else "unet"
    folder = Path(shutil.copytree(request.getfixturevalue(family), tmp_path / "model"))
    set_value(folder / file, name, value)
    sentence = brought_or_refused(folder)
    assert isinstance(sentence, str)
    assert re.search(says, sentence), sentence


@pytest.mark.parametrize(
    ("file", "name", "value"),
    [
        (SCHEDULER, "beta_schedule", "scaled_linear"),
        (SCHEDULER, "num_train_timesteps", 2),
        (SCHEDULER, "num_train_timesteps", 4000),
        (SCHEDULER, "trained_betas", [0.0001 * n for n in range(1, 1001)]),
        (SCHEDULER, "clip_sample", False),
        (UNET, "class_names", ["of", "the", "trainer"] * 400),
        (UNET, "attention_head_dim", None),
        (TRANSFORMER, "norm_num_groups", None),
        (VAE, "sample_size", [16, 16]),
    ],
)
def test_control_another_good_value_makes_a_model(request: pytest.FixtureRequest, tmp_path: Path, file: str, name: str, value: object) -> None:
    """Also where diffusers declares another type than it takes, and values that it does not know."""
    family = "dit" if file in (TRANSFORMER, VAE) else "unet"
    folder = Path(shutil.copytree(request.getfixturevalue(family), tmp_path / "model"))
    set_value(folder / file, name, value)
    found = brought_or_refused(folder)
    assert isinstance(found, Brought), found


def test_control_a_solver_with_a_sigma_that_diffusers_calls_a_bool(unet: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(unet, tmp_path / "model"))
    for name, value in {"_class_name": "UniPCMultistepScheduler", "sigma_min": 0.002, "sigma_max": 80.0, "use_karras_sigmas": True}.items():
        set_value(folder / SCHEDULER, name, value)
    assert isinstance(brought_or_refused(folder), Brought)


PUBLISHED: dict[str, tuple[Any, dict[str, Any]]] = {
    "google/ddpm-cifar10-32": (
        UNet2DModel,
        {
            "act_fn": "silu",
            "attention_head_dim": None,
            "block_out_channels": [128, 256, 256, 256],
            "center_input_sample": False,
            "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"],
            "downsample_padding": 0,
            "flip_sin_to_cos": False,
            "freq_shift": 1,
            "in_channels": 3,
            "layers_per_block": 2,
            "mid_block_scale_factor": 1,
            "norm_eps": 1e-06,
            "norm_num_groups": 32,
            "out_channels": 3,
            "sample_size": 32,
            "time_embedding_type": "positional",
            "up_block_types": ["UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
        },
    ),
    "facebook/DiT-XL-2-256": (
        DiTTransformer2DModel,
        {
            "activation_fn": "gelu-approximate",
            "attention_bias": True,
            "attention_head_dim": 72,
            "cross_attention_dim": None,
            "dropout": 0.0,
            "in_channels": 4,
            "norm_elementwise_affine": False,
            "norm_num_groups": 32,
            "norm_type": "ada_norm_zero",
            "num_attention_heads": 16,
            "num_embeds_ada_norm": 1000,
            "num_layers": 28,
            "num_vector_embeds": None,
            "out_channels": 8,
            "patch_size": 2,
            "sample_size": 32,
            "upcast_attention": False,
        },
    ),
    "stabilityai/sdxl-vae": (
        AutoencoderKL,
        {
            "block_out_channels": [128, 256, 512, 512],
            "down_block_types": ["DownEncoderBlock2D"] * 4,
            "force_upcast": True,
            "latent_channels": 4,
            "latents_mean": None,
            "layers_per_block": 2,
            "norm_num_groups": 32,
            "sample_size": 1024,
            "scaling_factor": 0.13025,
            "up_block_types": ["UpDecoderBlock2D"] * 4,
        },
    ),
    "runwayml/stable-diffusion-v1-5": (
        PNDMScheduler,
        {
            "beta_end": 0.012,
            "beta_schedule": "scaled_linear",
            "beta_start": 0.00085,
            "clip_sample": False,
            "num_train_timesteps": 1000,
            "set_alpha_to_one": False,
            "skip_prk_steps": True,
            "steps_offset": 1,
            "trained_betas": None,
        },
    ),
}
"""Configs that people have published, as far as they say something about types."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_control_configs_that_others_published_are_taken(name: str) -> None:
    kind, config = PUBLISHED[name]
    check_config(kind, config)


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("other", SCHEDULERS)
def test_control_a_scheduler_that_diffusers_made_of_another_one_is_read(name: str, other: str) -> None:
    """Infinite bounds and empty lists are among their defaults, and the other's words stay in the config."""
    made = getattr(diffusers, name).from_config(getattr(diffusers, other)().config)
    assert type(read_scheduler(json.loads(made.to_json_string()), "here")) is type(made)


@pytest.mark.parametrize(("file", "name"), [(UNET, "block_out_channels"), (TRANSFORMER, "attention_head_dim"), (VAE, "block_out_channels")])
@pytest.mark.parametrize("width", [1 << 15, 10**9])
def test_wide_layers_are_refused_before_they_take_memory(request: pytest.FixtureRequest, tmp_path: Path, file: str, name: str, width: int) -> None:
    """A layer of 32,768 channels has 4 GB or more; that many are a sentence and no kill."""
    folder = Path(shutil.copytree(request.getfixturevalue("unet" if file == UNET else "dit"), tmp_path / "model"))
    set_value(folder / file, name, [width, width] if name == "block_out_channels" else width)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert isinstance(brought_or_refused(folder), str)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 256 << 10


def change_weights(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Callable[[Path], None]:
    def write(file: Path) -> None:
        save_file(change(load_file(file)), file)

    return write


def replace_by_a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def unknown_numbers(file: Path) -> None:
    """The header names a type of numbers that there is not."""
    file.write_bytes(file.read_bytes().replace(b'"F32"', b'"Q32"'))


def of_type(type_: torch.dtype) -> Callable[[Path], None]:
    return change_weights(lambda weights: {name: value.to(type_) for name, value in weights.items()})


NO_WEIGHTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "a folder": (replace_by_a_folder, "where a file of weights is expected"),
    "complex": (of_type(torch.complex64), "of complex64 numbers"),
    "whole numbers": (of_type(torch.int8), "of int8 numbers"),
    "booleans": (of_type(torch.bool), "of bool numbers"),
    "another type": (unknown_numbers, "is not a safetensors file"),
}


@pytest.mark.parametrize("family", ["unet", "dit", "vae"])
@pytest.mark.parametrize("name", NO_WEIGHTS)
def test_weights_that_are_no_numbers_of_a_network_are_told(request: pytest.FixtureRequest, tmp_path: Path, family: str, name: str) -> None:
    folder = Path(shutil.copytree(request.getfixturevalue("unet" if family == "unet" else "dit"), tmp_path / "model"))
    damage, says = NO_WEIGHTS[name]
    part = {"unet": "unet", "dit": "transformer", "vae": "vae"}[family]
    damage(folder / part / PART_WEIGHTS)
    sentence = brought_or_refused(folder)
    assert isinstance(sentence, str), "no model"
    if family == "vae":  # diffusers' own loader reads it, and has words of its own
        says = "numbers: hand in weights in float32" if says.endswith("numbers") else "vae"
    assert says in sentence


@pytest.mark.parametrize("type_", [torch.float64, torch.float16, torch.bfloat16])
def test_control_weights_of_another_precision_are_read(unet: Path, tmp_path: Path, type_: torch.dtype) -> None:
    folder = Path(shutil.copytree(unet, tmp_path / "model"))
    of_type(type_)(folder / WEIGHTS)
    assert isinstance(brought_or_refused(folder), Brought)
