"""The lie: 'what serves samples as what was measured', of a table that is not the scheduler."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from erasediff.errors import IntegrityError
from erasediff.export.solvers import solver_table
from erasediff.models.families.unet import UNetDenoiser
from erasediff.models.process import NoiseSchedule, build_scheduler, read_scheduler, schedule_of, squared_cosine
from erasediff.models.sampler import Source
from erasediff.models.sampler import sample as sample_by_scheduler
from erasediff.records.config import SamplerConfig
from erasediff.serve.solver import initial_noise, load_table, sample, save_table

SHAPE, NULL = (1, 8, 8), 10
LABELS, SEEDS = np.arange(8, dtype=np.int64), [11, 22, 33, 44, 55, 66, 77, 2**53]
SOLVERS = pytest.mark.parametrize("name", ["ddim", "dpm-solver++", "unipc"])
ONE = np.ones(8, dtype=np.float32)
OWN = (
    {"_class_name": "DDPMScheduler", "num_train_timesteps": 1000, "beta_schedule": "linear", "prediction_type": "epsilon"},
    {"_class_name": "DDIMScheduler", "num_train_timesteps": 400, "beta_schedule": "linear", "beta_end": 0.05, "prediction_type": "v_prediction"},
    {"_class_name": "PNDMScheduler", "num_train_timesteps": 1000, "beta_schedule": "scaled_linear", "prediction_type": "epsilon"},
    {"_class_name": "EulerDiscreteScheduler", "num_train_timesteps": 1000, "beta_schedule": "scaled_linear", "prediction_type": "v_prediction"},
    {"_class_name": "DDPMScheduler", "num_train_timesteps": 500, "trained_betas": [0.0002 * k for k in range(1, 501)], "prediction_type": "epsilon"},
    {
        "_class_name": "DDIMScheduler",
        "num_train_timesteps": 1000,
        "beta_schedule": "linear",
        "rescale_betas_zero_snr": True,
        "prediction_type": "v_prediction",
    },
)
"""The schedulers of models that were trained elsewhere."""


class OverTorch:
    """The denoiser as the graph that serves calls it."""

    def __init__(self, unet) -> None:
        self.unet, self.rows = UNetDenoiser(unet), []

    @torch.no_grad()
    def __call__(self, noised, timesteps, labels):
        self.rows.append(len(noised))
        return self.unet(*(torch.from_numpy(np.ascontiguousarray(part)) for part in (noised, timesteps, labels))).numpy()


def by_scheduler(unet, name: str, steps: int, prediction: str, guidance: float, monkeypatch, schedule: NoiseSchedule | None = None) -> np.ndarray:
    """The loop that measures, from the same noise."""
    noise = torch.from_numpy(initial_noise(SEEDS, SHAPE))
    monkeypatch.setattr("erasediff.models.sampler.ImageNoise.draw", lambda self: noise)
    scheduler = build_scheduler(SamplerConfig(scheduler=name, steps=steps), schedule or squared_cosine(1000, prediction))
    source = Source(UNetDenoiser(unet), scheduler, SHAPE, NULL, torch.device("cpu"))
    return sample_by_scheduler(source, torch.from_numpy(LABELS), SEEDS, steps, guidance).numpy()


def by_table(unet, name: str, steps: int, prediction: str, guidance: float, schedule: NoiseSchedule | None = None) -> np.ndarray:
    table = solver_table(name, steps, schedule or squared_cosine(1000, prediction))
    return sample(OverTorch(unet), table, initial_noise(SEEDS, SHAPE), LABELS, NULL, guidance * ONE)


def furthest(left: np.ndarray, right: np.ndarray) -> int:
    return int(np.abs(left.astype(int) - right.astype(int)).max())


@SOLVERS
@pytest.mark.parametrize("steps", [1, 2, 3, 10, 25])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_a_table_is_the_scheduler_to_one_grey_level(tiny_unet, monkeypatch, name: str, steps: int, prediction: str, guidance: float) -> None:
    unet = tiny_unet()
    wanted = by_scheduler(unet, name, steps, prediction, guidance, monkeypatch)
    assert furthest(by_table(unet, name, steps, prediction, guidance), wanted) <= 1
    assert wanted.std() > 10, "control: there is something to see"


@SOLVERS
@pytest.mark.parametrize("own", OWN, ids=lambda own: f"{own['_class_name']}-{own.get('beta_schedule', 'trained')}-{own['prediction_type']}")
def test_a_model_is_sampled_on_the_schedule_that_it_was_trained_on(tiny_unet, monkeypatch, name: str, own: dict) -> None:
    """Control: on the squared cosine of the models that are trained here the same model makes other images."""
    schedule = schedule_of(read_scheduler(own, "the folder"))
    read_again = schedule_of(build_scheduler(SamplerConfig(scheduler=name), schedule))
    assert torch.equal(read_again.alphas_cumprod, schedule.alphas_cumprod), "as the saved model is read"
    unet, asked = tiny_unet(), (name, 10, own["prediction_type"], 1.0)
    wanted = by_scheduler(unet, *asked, monkeypatch, schedule)
    served = by_table(unet, *asked, schedule)
    assert furthest(served, wanted) <= 1
    assert wanted.std() > 10, "control: there is something to see"
    assert furthest(by_table(unet, *asked), wanted) > 1, "control"


@SOLVERS
def test_control_another_solver_or_number_of_steps_is_seen(tiny_unet, monkeypatch, name: str) -> None:
    wanted = by_scheduler(tiny_unet(), name, 10, "epsilon", 1.0, monkeypatch)
    other = {"ddim": "unipc", "dpm-solver++": "ddim", "unipc": "dpm-solver++"}[name]
    assert furthest(by_table(tiny_unet(), other, 10, "epsilon", 1.0), wanted) > 1
    assert furthest(by_table(tiny_unet(), name, 12, "epsilon", 1.0), wanted) > 1


def test_clipping_matters_and_is_the_schedulers(tiny_unet, monkeypatch) -> None:
    """A table that forgot to clip would agree wherever nothing is to be clipped."""
    unet = tiny_unet()
    with torch.no_grad():
        unet.conv_out.bias += 3.0
    for name in ("ddim", "dpm-solver++", "unipc"):
        wanted = by_scheduler(unet, name, 10, "epsilon", 1.0, monkeypatch)
        assert furthest(by_table(unet, name, 10, "epsilon", 1.0), wanted) <= 1
        assert set(np.unique(wanted)) & {0, 255}


def test_an_image_depends_on_its_own_seed_label_and_guidance_alone(tiny_unet) -> None:
    """Requests of others are in the same batch."""
    graph, table = OverTorch(tiny_unet()), solver_table("dpm-solver++", 10, squared_cosine(1000))
    guidance = np.array([1, 2, 1, 4, 1, 1, 7.5, 1], dtype=np.float32)
    together = sample(graph, table, initial_noise(SEEDS, SHAPE), LABELS, NULL, guidance)
    assert set(graph.rows) == {8 + 3}, "the null label is asked for those alone that need it"
    for i in range(8):
        alone = sample(graph, table, initial_noise(SEEDS[i : i + 1], SHAPE), LABELS[i : i + 1], NULL, guidance[i : i + 1])
        assert furthest(alone, together[i : i + 1]) <= 1
    assert furthest(sample(graph, table, initial_noise(SEEDS, SHAPE), LABELS, NULL, ONE), together) > 1, "control"


def test_a_table_comes_back_as_it_was_written_and_no_other_by_its_name(tmp_path: Path) -> None:
    table = solver_table("dpm-solver++", 7, squared_cosine(1000, "v_prediction"))
    save_table("dpm-solver++-7", table, tmp_path / "solvers.npz")
    back = load_table(tmp_path / "solvers.npz", "dpm-solver++-7")
    assert back.prediction == "v_prediction"
    assert all(np.array_equal(getattr(back, part), getattr(table, part)) for part in ("timesteps", "signal", "start", "clean", "noise"))
    save_table("ddim-2", solver_table("ddim", 2, squared_cosine(1000)), tmp_path / "other.npz")
    several = dict(np.load(tmp_path / "solvers.npz")) | dict(np.load(tmp_path / "other.npz"))
    np.savez_compressed(tmp_path / "both.npz", allow_pickle=False, **several)
    assert load_table(tmp_path / "both.npz", "ddim-2").steps == 2, "a file with more tables, as earlier versions wrote it, is read"
    with pytest.raises(IntegrityError, match="has no table of the measured solver ddim-7"):
        load_table(tmp_path / "solvers.npz", "ddim-7")


def test_serving_imports_neither_torch_nor_diffusers() -> None:
    """The image that serves has neither."""
    import subprocess
    import sys

    code = "import sys, erasediff.serve.solver; sys.exit(bool({'torch', 'diffusers', 'transformers', 'mlflow'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
