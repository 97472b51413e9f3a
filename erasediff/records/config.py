"""The configuration of a run: one strict document, identified by its digest.

Defaults are the demo's values; :file:`params.yaml` lists them, and a test compares the two.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self, get_args

from pydantic import Field, model_validator

from erasediff.errors import BadInput
from erasediff.records.base import Strict

TargetName = Literal["relabel", "anchor", "mixture", "noise"]
TeacherName = Literal["base", "current"]
MultiplierName = Literal["paper", "cosine", "fixed"]
MethodName = Literal["erasediff", "finetune", "neggrad", "salun", "sfron", "munba", "siss", "sa", "retrain"]
ParameterGroupName = Literal["full", "attention", "cross-attention", "no-cross-attention"]
DeviceName = Literal["auto", "cpu", "cuda"]
NetworkName = Literal["plain", "residual"]
SchedulerName = Literal["ddim", "dpm-solver++", "unipc"]
DuplicatesRule = Literal["refuse", "forget"]
PrecisionName = Literal["fp32", "bf16", "fp16"]


MAX_SIDE = 512
"""Of an image that a model makes or is trained on, in pixels."""
MAX_TIMESTEPS = 10_000
"""Of a noise schedule."""


class DatasetConfig(Strict):
    """Which images: a built-in set, or a kind and a path."""

    name: str = Field(default="digits", min_length=1, max_length=64, pattern=r"^[A-Za-z0-9._-]+$")
    kind: Literal["digits", "folder", "imagefolder", "shards", "idx"] = "digits"
    path: str | None = None
    size: int | None = Field(default=None, ge=8, le=MAX_SIDE, description="side in pixels to reduce square images to, by the mean of the area")
    duplicates: DuplicatesRule = Field(
        default="refuse", description="pictures to forget that lie under a retained label too: end the run, or let them join the forget set"
    )
    holdout_share: float = Field(default=1 / 3, gt=0, lt=1, description="share of every class that no denoiser is trained on")
    holdout_seed: int = Field(default=0, ge=0, lt=2**31)

    @model_validator(mode="after")
    def _path_where_needed(self) -> Self:
        if (self.kind == "digits") != (self.path is None):
            raise ValueError(f"kind '{self.kind}' {'takes no' if self.kind == 'digits' else 'needs a'} path")
        return self


def dataset_fields(text: str) -> dict[str, object]:
    """The fields of the dataset that ``KIND`` or ``KIND:PATH`` says, named after its folder; :class:`DatasetConfig` checks them.

    Raises:
        BadInput: it does not begin with a kind.
    """
    kind, separator, path = text.partition(":")
    if kind not in (kinds := get_args(DatasetConfig.model_fields["kind"].annotation)):
        raise BadInput(
            f"the dataset {text[:200]!a} does not begin with its kind: write KIND:PATH, with a KIND of {', '.join(kinds)}; digits has no path."
        )
    if not separator:
        return {"name": kind, "kind": kind}
    folder = Path(path).resolve()
    name = "".join(c if (c.isascii() and c.isalnum()) or c in "._-" else "-" for c in folder.name)
    return {"kind": kind, "path": str(folder), "name": name}


class DenoiserConfig(Strict):
    """The UNet of a base model trained here."""

    block_out_channels: tuple[int, ...] = (16, 32)
    layers_per_block: int = Field(default=1, ge=1, le=4)
    norm_num_groups: int = Field(default=8, ge=1)
    train_timesteps: int = Field(default=1000, ge=10, le=MAX_TIMESTEPS)
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
    """The sampler of both the measurements and the server."""

    scheduler: SchedulerName = "dpm-solver++"
    steps: int = Field(default=10, ge=1, le=1000)
    guidance_scale: float = Field(default=1.0, ge=0, le=50)
    batch_size: int = Field(default=250, ge=1)
    workers: int = Field(default=2, ge=1, le=64, description="threads that sample in parallel")


class ProxyConfig(Strict):
    """A quick check on a small sample that may end an erasure early."""

    every: int = Field(default=50, ge=1, description="steps between two checks")
    n: int = Field(default=200, ge=10, description="samples per check, under the forgotten labels")
    max_detections: int = Field(default=0, ge=0, description="maximum of samples nearer to the forget set than to the retain set")


class EraseConfig(Strict):
    """The erasure; symbols as in the paper (arXiv 2401.05779)."""

    method: MethodName = "erasediff"
    target: TargetName = "mixture"
    teacher: TeacherName = "base"
    teacher_pool: int = Field(default=0, ge=0, description="forget batches whose targets are computed once and reused; 0: none")
    mixture_estimate: Literal["drawn", "closed-form"] = Field(default="closed-form", description="one draw, or from the null label")
    posterior_bandwidth: float = Field(default=0.3, gt=0, description="kernel width of p(c|x_t) for 'mixture'")
    anchor: int | None = Field(default=None, ge=0, description="the fixed label of target 'anchor'; next retained label if unset")
    repulsion: float = Field(default=1.5, ge=0, description="ρ: how far 'mixture' is pushed away from the base's forgotten label, times t/T")
    truth_share: float = Field(default=0, ge=0, le=1, description="share of the true noise in the retain target; the rest: the base's prediction")
    multiplier: MultiplierName = "paper"
    eta: float = Field(default=0.2, ge=0, description="η of the paper; λ itself under multiplier 'fixed'")
    eta_decay_fraction: float = Field(default=1.0, ge=0, le=1, description="last share of the steps over which η falls to 0; the paper: 0")
    balance: float | None = Field(default=None, gt=0, description="salun's β, sfron's ascent, siss's share, sa's λ; the method's default if unset")
    parameters: ParameterGroupName = "full"
    steps: int = Field(default=300, ge=1)
    batch_size: int = Field(default=64, ge=1, description="of each loss, over all processes")
    accumulation: int = Field(default=1, ge=1, description="parts into which a batch is split, to save memory")
    learning_rate: float = Field(default=1e-3, gt=0, description="α of the paper")
    decay_fraction: float = Field(default=0.9, ge=0, le=1, description="last share of the steps over which the rate falls to 0")
    starting_point_decay: float = Field(
        default=3.0, ge=0, description="decoupled decay of the weights towards the base, times the rate (L2-SP); 0 in the paper"
    )
    label_dropout: float = Field(default=0.1, ge=0, lt=1, description="on the retain pass only")
    max_gradient_norm: float = Field(default=1.0, gt=0)
    visited_share: float = Field(default=0.5, ge=0, lt=1, description="share of the forget batch that is made from retain images")
    ema_decay: float = Field(default=0.99, ge=0, lt=1)
    weights: Literal["ema", "raw"] = Field(default="ema", description="which weights are the result")
    precision: PrecisionName = "fp32"
    gradient_checkpointing: bool = False
    ema_on_cpu: bool = Field(default=False, description="keep the average on the CPU, to save GPU memory")
    proxy: ProxyConfig | None = None
    checkpoint_every: int = Field(default=100, ge=1)

    @model_validator(mode="after")
    def _settings_that_fit(self) -> Self:
        if self.teacher_pool and self.teacher == "current":
            raise ValueError("teacher_pool reuses targets, so the teacher must not change: use teacher 'base'")
        if self.target == "mixture" and self.mixture_estimate == "closed-form" and self.teacher == "current":
            raise ValueError("mixture_estimate 'closed-form' needs the base's null label: use teacher 'base', or 'drawn'")
        if self.learning_rate * self.starting_point_decay >= 1:
            raise ValueError("learning_rate times starting_point_decay has to be below 1, or no step would leave the base: lower one of them")
        return self


class DetectorConfig(Strict):
    """The classifier that measures: trained on held-out real images, or loaded from a local folder. The erase step never sees it."""

    kind: Literal["trained", "transformers"] = "trained"
    path: str | None = Field(default=None, description="folder of an image classifier written by save_pretrained, for 'transformers'")
    labels: tuple[int, ...] = Field(default=(), description="for 'transformers': the model's class for each class of the dataset, in order")
    network: NetworkName = Field(default="plain", description="'plain' for tiny images, 'residual' for 16 pixels and more")
    augmentation: float = Field(default=1.0, ge=0, le=1, description="share of the full rotation, scale, shear and shift")
    flip: bool = Field(default=False, description="mirror images at random; wrong for digits and letters")
    steps: int = Field(default=600, ge=1)
    batch_size: int = Field(default=64, ge=1, description="of training; for 'transformers': of inference")
    learning_rate: float = Field(default=3e-3, gt=0)
    seed: int = Field(default=7, ge=0, lt=2**31)

    @model_validator(mode="after")
    def _path_and_labels_where_needed(self) -> Self:
        if (self.kind == "trained") != (self.path is None):
            raise ValueError(f"kind '{self.kind}' {'takes no' if self.kind == 'trained' else 'needs a'} path")
        if (self.kind == "trained") != (not self.labels):
            raise ValueError(f"kind '{self.kind}' {'takes no' if self.kind == 'trained' else 'needs'} labels")
        if len(set(self.labels)) < len(self.labels) or min(self.labels, default=0) < 0:
            raise ValueError("labels must be distinct classes of the model, 0 or more")
        return self


class FeaturesConfig(Strict):
    """The features that compare retained images: the detector's, or those of a local model; nothing is downloaded."""

    kind: Literal["detector", "transformers", "inception"] = "detector"
    path: str | None = Field(default=None, description="'transformers': a folder written by save_pretrained; 'inception': a file of weights")
    batch_size: int = Field(default=64, ge=1, le=4096, description="of inference")

    @model_validator(mode="after")
    def _path_where_needed(self) -> Self:
        if (self.kind == "detector") != (self.path is None):
            raise ValueError(f"kind '{self.kind}' {'takes no' if self.kind == 'detector' else 'needs a'} path")
        return self


class ReportConfig(Strict):
    """What the report shows."""

    show_forgotten: bool = Field(default=False, description="show samples of the forgotten label; for public data only")


class PurgeConfig(Strict):
    """What the purge keeps, and what it deletes in addition."""

    warm_builds: int = Field(default=2, ge=1, le=100, description="erased builds to keep for a roll-back, including the champion")
    superseded: Literal["delete", "tag"] = Field(default="delete", description="what happens to registered versions that know the class")
    places: tuple[str, ...] = Field(default=(), max_length=100, description="folders or s3:// prefixes to purge too, with this request's data only")

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
    """Everything that determines a run, except the request and the policy."""

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
        """This configuration for printing and logging, without the operator's places, whose names may be private."""
        return self.model_dump(mode="json", exclude={"purge": {"places"}})


def load_config(path: Path) -> RunConfig:
    """Read a run's configuration from YAML.

    Raises:
        BadInput: unreadable, or not following the schema.
    """
    from erasediff.records.yaml import load_yaml  # the extra 'verify' has no YAML reader

    return RunConfig.parse(load_yaml(path, "the config") or {}, f"the config {path}")
