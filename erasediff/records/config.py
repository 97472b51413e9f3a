"""The configuration of a run: typed, strict, printable as one document whose digest is quoted everywhere.

Defaults are the demo's values; :file:`params.yaml` spells them out and a test holds the two together.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from erasediff.records.base import Strict

TargetName = Literal["relabel", "anchor", "mixture", "noise"]
TeacherName = Literal["base", "current"]
MultiplierName = Literal["paper", "cosine", "fixed"]
MethodName = Literal["erasediff", "finetune", "neggrad", "salun", "sfron", "munba", "siss", "sa", "retrain"]
ParameterGroupName = Literal["full", "attention", "cross-attention", "no-cross-attention"]
DeviceName = Literal["auto", "cpu", "cuda"]
NetworkName = Literal["plain", "residual"]
SchedulerName = Literal["ddim", "dpm-solver++", "unipc"]
PrecisionName = Literal["fp32", "bf16", "fp16"]


class DatasetConfig(Strict):
    """Which images: a built-in set, or a kind and a path."""

    name: str = Field(default="digits", min_length=1, max_length=64, pattern=r"^[A-Za-z0-9._-]+$")
    kind: Literal["digits", "folder", "shards", "idx"] = "digits"
    path: str | None = None
    size: int | None = Field(default=None, ge=8, le=512, description="side in pixels to reduce the images to")
    holdout_share: float = Field(default=1 / 3, gt=0, lt=1, description="share of every class that no denoiser is trained on")
    holdout_seed: int = Field(default=0, ge=0, lt=2**31)

    @model_validator(mode="after")
    def _path_where_needed(self) -> Self:
        if (self.kind == "digits") != (self.path is None):
            raise ValueError(f"kind '{self.kind}' {'takes no' if self.kind == 'digits' else 'needs a'} path")
        return self


class DenoiserConfig(Strict):
    """The UNet of a base model trained here."""

    block_out_channels: tuple[int, ...] = (16, 32)
    layers_per_block: int = Field(default=1, ge=1, le=4)
    norm_num_groups: int = Field(default=8, ge=1)
    train_timesteps: int = Field(default=1000, ge=10, le=10_000)
    prediction: Literal["epsilon", "v_prediction"] = Field(default="epsilon", description="what the UNet predicts: ε, or the velocity v")
    conditioning: Literal["add", "scale-shift"] = Field(default="add", description="how time and class enter a residual block")

    @model_validator(mode="after")
    def _channels_in_groups(self) -> Self:
        if not self.block_out_channels or any(c < 1 or c % self.norm_num_groups for c in self.block_out_channels):
            raise ValueError(f"block_out_channels must be positive multiples of norm_num_groups, {self.norm_num_groups}")
        return self


class BaseTrainingConfig(Strict):
    """How a base model is trained when the registry has no champion yet."""

    steps: int = Field(default=1200, ge=1)
    batch_size: int = Field(default=128, ge=1)
    learning_rate: float = Field(default=3e-3, gt=0)
    weight_decay: float = Field(default=1e-4, ge=0)
    decay_fraction: float = Field(default=0.6, ge=0, le=1, description="last share of the steps over which the rate falls to 0")
    label_dropout: float = Field(default=0.1, ge=0, lt=1)
    ema_decay: float = Field(default=0.995, ge=0, lt=1)


class SamplerConfig(Strict):
    """The sampler that measures and that serves: one and the same."""

    scheduler: SchedulerName = "dpm-solver++"
    steps: int = Field(default=10, ge=1, le=1000)
    guidance_scale: float = Field(default=1.0, ge=0, le=50)
    batch_size: int = Field(default=250, ge=1)
    workers: int = Field(default=2, ge=1, le=64, description="processes that sample side by side, one thread each")


class ProxyConfig(Strict):
    """A development check on a small sample that may end an erasure early; steps are a budget, not a promise."""

    every: int = Field(default=50, ge=1, description="steps between two looks")
    n: int = Field(default=200, ge=10, description="samples a look, under the forgotten labels")
    max_detections: int = Field(default=0, ge=0, description="most samples that may be nearer to the forget set than to the retain set")


class EraseConfig(Strict):
    """How a model is made to forget; the symbols are the paper's (arXiv 2401.05779)."""

    method: MethodName = "erasediff"
    target: TargetName = "mixture"
    teacher: TeacherName = "base"
    teacher_pool: int = Field(default=0, ge=0, description="forget batches aimed once and used in turn; 0: a new one each step")
    mixture_estimate: Literal["drawn", "closed-form"] = Field(default="closed-form", description="one draw, or from the null label")
    posterior_bandwidth: float = Field(default=0.3, gt=0, description="kernel width of p(c|x_t) for 'mixture'")
    anchor: int | None = Field(default=None, ge=0, description="the fixed label of target 'anchor'; next retained label if unset")
    repulsion: float = Field(default=1.5, ge=0, description="ρ: how far 'mixture' is pushed away from the base's forgotten label, times t/T")
    truth_share: float = Field(default=0, ge=0, le=1, description="of the true noise in the retain loss's goal; the rest is the base's prediction")
    multiplier: MultiplierName = "paper"
    eta: float = Field(default=0.2, ge=0, description="η of the paper; λ itself under multiplier 'fixed'")
    eta_decay_fraction: float = Field(default=1.0, ge=0, le=1, description="last share of the steps over which η falls to 0; the paper: 0")
    balance: float | None = Field(default=None, gt=0, description="salun's β, sfron's ascent, siss's share, sa's λ; the method's own if unset")
    parameters: ParameterGroupName = "full"
    steps: int = Field(default=300, ge=1)
    batch_size: int = Field(default=64, ge=1, description="of each loss, over all processes")
    accumulation: int = Field(default=1, ge=1, description="parts a batch is taken in, to spare memory")
    learning_rate: float = Field(default=1e-3, gt=0, description="α of the paper")
    decay_fraction: float = Field(default=0.9, ge=0, le=1, description="last share of the steps over which the rate falls to 0")
    starting_point_decay: float = Field(
        default=3.0, ge=0, description="decoupled decay of the weights towards where they started, times the rate (L2-SP); 0: the paper's"
    )
    label_dropout: float = Field(default=0.1, ge=0, lt=1, description="on the retain pass only")
    max_gradient_norm: float = Field(default=1.0, gt=0)
    visited_share: float = Field(default=0.5, ge=0, lt=1, description="share of the forget batch made from retain images")
    ema_decay: float = Field(default=0.99, ge=0, lt=1)
    weights: Literal["ema", "raw"] = Field(default="ema", description="what leaves the engine")
    precision: PrecisionName = "fp32"
    gradient_checkpointing: bool = False
    ema_on_cpu: bool = Field(default=False, description="spare a GPU the memory of the average")
    proxy: ProxyConfig | None = None
    checkpoint_every: int = Field(default=100, ge=1)

    @model_validator(mode="after")
    def _settings_that_fit(self) -> Self:
        if self.teacher_pool and self.teacher == "current":
            raise ValueError("teacher_pool keeps targets of a teacher that does not change: use teacher 'base'")
        if self.target == "mixture" and self.mixture_estimate == "closed-form" and self.teacher == "current":
            raise ValueError("mixture_estimate 'closed-form' takes the forgotten class out of the base's null label: use teacher 'base', or 'drawn'")
        if self.learning_rate * self.starting_point_decay >= 1:
            raise ValueError("learning_rate times starting_point_decay has to be below 1, or no step would leave the base: lower one of them")
        return self


class DetectorConfig(Strict):
    """The classifier that measures, never seen by the erase step: trained on the held-out real images, or a model from a local folder."""

    kind: Literal["trained", "transformers"] = "trained"
    path: str | None = Field(default=None, description="folder of an image classifier written by save_pretrained, for 'transformers'")
    labels: tuple[int, ...] = Field(default=(), description="for 'transformers': the model's class for each class of the dataset, in its order")
    network: NetworkName = Field(default="plain", description="'plain' for tiny images, 'residual' from 16 pixels on")
    augmentation: float = Field(default=1.0, ge=0, le=1, description="share of the full rotation, scale, shear and shift")
    flip: bool = Field(default=False, description="mirror images at random; wrong for writing")
    steps: int = Field(default=600, ge=1)
    batch_size: int = Field(default=64, ge=1, description="of training; for 'transformers': images that are looked at at once")
    learning_rate: float = Field(default=3e-3, gt=0)
    seed: int = Field(default=7, ge=0, lt=2**31)

    @model_validator(mode="after")
    def _path_and_labels_where_needed(self) -> Self:
        if (self.kind == "trained") != (self.path is None):
            raise ValueError(f"kind '{self.kind}' {'takes no' if self.kind == 'trained' else 'needs a'} path")
        if (self.kind == "trained") != (not self.labels):
            raise ValueError(f"kind '{self.kind}' {'takes no' if self.kind == 'trained' else 'needs'} labels")
        if len(set(self.labels)) < len(self.labels) or min(self.labels, default=0) < 0:
            raise ValueError("labels must be different classes of the model, from 0 on")
        return self


class FeaturesConfig(Strict):
    """What retained images are compared by: the detector's features, or those of a model from a local path; nothing is downloaded."""

    kind: Literal["detector", "transformers", "inception"] = "detector"
    path: str | None = Field(default=None, description="'transformers': a folder written by save_pretrained; 'inception': a file of weights")
    batch_size: int = Field(default=64, ge=1, le=4096, description="images that are looked at at once")

    @model_validator(mode="after")
    def _path_where_needed(self) -> Self:
        if (self.kind == "detector") != (self.path is None):
            raise ValueError(f"kind '{self.kind}' {'takes no' if self.kind == 'detector' else 'needs a'} path")
        return self


class ReportConfig(Strict):
    """What the report may show."""

    show_forgotten: bool = Field(default=False, description="show samples of the forgotten label; for public data only")


class PurgeConfig(Strict):
    """What the purge leaves, and what else it takes."""

    warm_builds: int = Field(default=2, ge=1, le=100, description="erased builds that stay to roll back to, the champion among them")
    superseded: Literal["delete", "tag"] = Field(default="delete", description="what becomes of the registry's versions that know the class")
    places: tuple[str, ...] = Field(default=(), max_length=100, description="folders or s3:// prefixes of the owner's that hold this request alone")

    @model_validator(mode="after")
    def _places_that_are_meant(self) -> Self:
        for place in self.places:
            if place.startswith("s3://"):
                bucket, _, prefix = place.removeprefix("s3://").partition("/")
                fits = bool(bucket and prefix.strip("/"))
            else:
                fits = "://" not in place and Path(place).is_absolute() and ".." not in Path(place).parts and len(Path(place).parts) > 2
            if not fits:
                raise ValueError("each of the places must be an absolute folder at least two levels deep, or s3://BUCKET/PREFIX")
        return self


class RunConfig(Strict):
    """Everything that decides a run, except the request and the policy."""

    seed: int = Field(default=0, ge=0, lt=2**31)
    device: DeviceName = "auto"
    model_name: str = Field(default="digits", min_length=1, max_length=128, pattern=r"^[A-Za-z0-9._-]+$")
    dataset: DatasetConfig = DatasetConfig()
    denoiser: DenoiserConfig = DenoiserConfig()
    base_training: BaseTrainingConfig | None = BaseTrainingConfig()
    sampler: SamplerConfig = SamplerConfig()
    erase: EraseConfig = EraseConfig()
    detector: DetectorConfig = DetectorConfig()
    features: FeaturesConfig = FeaturesConfig()
    report: ReportConfig = ReportConfig()
    purge: PurgeConfig = PurgeConfig()

    @model_validator(mode="after")
    def _sampler_within_schedule(self) -> Self:
        if self.sampler.steps > self.denoiser.train_timesteps:
            raise ValueError(f"sampler.steps {self.sampler.steps} is more than denoiser.train_timesteps {self.denoiser.train_timesteps}")
        return self

    def shown(self) -> dict[str, Any]:
        """This configuration as it may be printed and logged: without the owner's places, whose names are theirs."""
        return self.model_dump(mode="json", exclude={"purge": {"places"}})


def load_config(path: Path) -> RunConfig:
    """Read a run's configuration from YAML.

    Raises:
        BadInput: unreadable, or not following the schema.
    """
    from erasediff.records.yaml import load_yaml  # who checks certificates has no reader of YAML

    return RunConfig.parse(load_yaml(path, "the config") or {}, f"the config {path}")
