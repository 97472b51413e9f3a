"""The records of a run, in the order in which its steps make them.

request -> forget set -> erased model -> measurements -> verdict -> exported model -> registered version -> roll-out -> promotion
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Literal

from pydantic import Field

from erasediff.errors import ExitCode
from erasediff.records.attacks import Detections
from erasediff.records.base import Pointer, Probability, Record, Sha256, Strict
from erasediff.records.names import ClassName, ClassRecord


class Verdict(StrEnum):
    """The verdicts of a gate. Only PASS promotes."""

    PASS = "PASS"  # noqa: S105 - not a password
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"

    @property
    def exit_code(self) -> ExitCode:
        """The exit code of a command that ends with this verdict."""
        return {Verdict.PASS: ExitCode.OK, Verdict.FAIL: ExitCode.GATE_FAIL}.get(self, ExitCode.GATE_INCONCLUSIVE)


class ErasureRequest(Strict):
    """The class to forget, by its name. The name may be a person's, so a request stays in the ledger and in the workdir.

    Two requests with the same content are the same request: their digest is the idempotency key.
    """

    dataset: str = Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9._-]+$")
    scope: Literal["class"] = "class"
    label: ClassName


class PlanRecord(Record):
    """The plan of an attempt, fixed before anything runs.

    ``position`` is that of the class in the model's list: logs, MLflow and Kubeflow are told it in place of the name. ``request_id`` is the
    digest of the request with that position, by which they know the request: a digest of the name would confirm a guess at the name. ``batch`` names
    all attempts of the batch, including this one, earliest deadline first; it is empty for a single attempt.
    """

    run: str
    attempt: int = Field(ge=1)
    request: ErasureRequest
    position: int = Field(ge=0)
    request_id: Sha256
    batch: tuple[str, ...] = ()
    config_digest: Sha256
    policy_digest: Sha256
    seed_commitment: Sha256
    mlflow_run_id: str


class ModelRecord(ClassRecord):
    """A class-conditional diffusion model in diffusers layout, and what it has forgotten.

    ``epoch`` counts its erasures; the epoch of the deployed model never decreases.
    """

    dataset: str
    epoch: int = Field(default=0, ge=0)
    weights: Pointer
    folder_sha256: Sha256


class Judges(Strict):
    """Digests of an attempt's judges: the classifier, the real images that serve as neighbours, and the feature extractor."""

    classifier: Sha256
    neighbours: Sha256
    features: Sha256


class BaseRecord(Record):
    """The champion that this attempt starts from, and the attempt's judges; both are pinned before the erasure.

    ``drift`` is the factor by which earlier erasures changed the Fréchet distance of retained classes; ``None`` if unknown.
    """

    name: str
    version: str
    model: ModelRecord
    drift: float | None = Field(default=1.0, gt=0)
    judges: Judges | None = None


class NearComparison(Strict):
    """How pictures that are nearly the same were looked for, and how many were ``found``.

    At most ``distance`` of the ``bits`` of their perceptual hashes differ, and their pixels correlate by ``correlation`` at least.
    """

    bits: int
    distance: int
    correlation: float
    found: int = Field(ge=0)


class Comparison(Strict):
    """What the forget set was compared with. It holds counts only.

    ``compared`` images under retained labels, trained on or held out, were compared with those of the forget set and of labels forgotten earlier;
    ``exact`` of them had the pixels of one. ``near`` is ``None`` for images that are too small to look nearly the same. ``joined`` of those that
    were found joined the forget set; ``forgotten_before`` are pictures of labels forgotten earlier, or in the same run, and in no set.
    """

    compared: int = Field(ge=0)
    exact: int = Field(ge=0)
    near: NearComparison | None
    joined: int = Field(ge=0)
    forgotten_before: int = Field(ge=0)

    def in_words(self) -> str:
        """One sentence for people."""
        ways = "pixel for pixel alone, for they are too small to be compared otherwise"
        if self.near is not None:
            least = f"at a distance of at most {self.near.distance} with a correlation of the pixels of at least {self.near.correlation}"
            ways = f"pixel for pixel, and by a perceptual hash of {self.near.bits} bits {least}"
        compared = f"The pictures of the forget set were compared with {self.compared} retained and held-out pictures: {ways}"
        before = f", and {self.forgotten_before} are pictures of classes forgotten earlier or in the same run" if self.forgotten_before else ""
        return f"{compared}; {self.joined} joined the forget set{before}."


class ForgetSetRecord(Record):
    """The forget set's version in DVC, and its split. It holds counts and digests, never images or names.

    All hashes here depend on the request's key: ``version`` and ``manifest_sha256`` hash files that contain a commitment, and the ``hmac`` of
    positions are commitments. Once the purge has destroyed the key, none of them can be matched with an image. Records from before forget sets were
    compared have no ``comparison``, and the digest that they had.
    """

    label: int
    version: str = Field(pattern=r"^[0-9a-f]{32}\.dir$")
    remote: str
    manifest_sha256: Sha256
    count: int = Field(ge=1)
    retain_count: int = Field(ge=1)
    gone_count: int = Field(ge=0)
    forget_indices_hmac: Sha256
    retain_indices_hmac: Sha256
    comparison: Comparison | None = Field(default=None, exclude_if=lambda comparison: comparison is None)


class ErasedRecord(Record):
    """The erased model, and the cost of the erasure."""

    model: ModelRecord
    steps: int
    forward_passes: int
    backward_passes: int
    ema_base_share: Probability
    curves: Pointer


Unit = Literal["share", "difference", "relative", "number"]
"""The unit of a check's number: a share of samples, a difference of shares, a change relative to the base, a plain number."""


class Check(Strict):
    """One check of the gate."""

    id: str
    title: str
    statistic: str
    unit: Unit
    value: float | None
    bound: float | None
    bound_kind: Literal["upper", "lower"]
    threshold: float
    n: int
    verdict: Verdict
    reason: str = ""


class VerdictRecord(Record):
    """The gate's verdict under a policy.

    ``attempt`` counts the judged tries at this request; ``alpha`` is this try's level, and ``alpha_spent`` the sum over all tries. ``checks``
    decided, ``reported`` did not; ``left_out`` names what the policy asks and a model without a null row cannot be asked. ``evaluation_key``
    reveals the key that the plan committed to, so that anyone can draw the images again.
    """

    verdict: Verdict
    attempt: int = Field(ge=1)
    alpha: Probability
    alpha_spent: Probability
    evaluation_key: Sha256
    policy_digest: Sha256
    checks: tuple[Check, ...]
    reported: tuple[Check, ...] = ()
    left_out: tuple[str, ...] = Field(default=(), exclude_if=lambda left_out: not left_out)


def left_out_in_words(left_out: Sequence[str]) -> str:
    """The sentence about what a model without a null row was not asked; empty if nothing was left out."""
    if not left_out:
        return ""
    return f"The model was trained without a row for no class, so what needs one was not asked: {', '.join(left_out)}."


class Try(Strict):
    """A step's verdict on an attempt: one line of an append-only list."""

    request: Sha256
    plan: Sha256
    step: str
    verdict: Verdict


class Parity(Strict):
    """The difference between the exported graph and its denoiser."""

    batch: int
    timestep: int
    max_relative_error: float = Field(ge=0)


DATA_SUFFIX = ".data"
"""What torch adds to the name of a large graph for the file beside it that holds its weights."""


class ExportedFiles(Record):
    """The files of an exported model.

    ``solvers`` holds the table of coefficients of ``solver``, the solver that was measured. A latent model has a ``decoder``, the graph that
    makes images of latents. ``data`` are files beside these graphs that hold their weights, of graphs too large to hold them; records without any
    have the digest that they had before there was this field.
    """

    onnx: Pointer
    solvers: Pointer
    decoder: Pointer | None = None
    data: tuple[Pointer, ...] = Field(default=(), exclude_if=lambda data: not data)
    solver: str
    weights_sha256: Sha256
    verdict: Verdict

    @property
    def files(self) -> tuple[Pointer, ...]:
        """All of them."""
        return (self.onnx, self.solvers, *((self.decoder,) if self.decoder else ()), *self.data)

    @property
    def onnx_data(self) -> Pointer | None:
        """The file with the weights of ``onnx``, if they are not in it."""
        return next((pointer for pointer in self.data if pointer.uri == f"{self.onnx.uri}{DATA_SUFFIX}"), None)


class ExportedRecord(ExportedFiles):
    """The ONNX graph of some weights, with its own verdict (F8); on tier 2 the graph with 8-bit weights is gated too."""

    parity: tuple[Parity, ...]
    forget_onnx: Detections | None
    forget_int8: Detections | None = None
    checks: tuple[Check, ...]


def verdict_in(record: Record) -> Verdict:
    """The verdict of a gate's record, or of an exported graph's."""
    assert isinstance(record, VerdictRecord | ExportedRecord)
    return record.verdict


MANIFEST = "served.json"
"""The file of a signed :class:`ServedModel`; a folder without it is not a model."""
SERVED = "application/vnd.erasediff.served+json"
"""The type of its payload."""


class Servable(Record):
    """What decides whether an exported model may be served. It holds no name, so a cluster's objects may hold it."""

    epoch: int = Field(ge=0)
    onnx: Pointer
    weights_sha256: Sha256
    verdict: Verdict

    def servable(self) -> Servable:
        """This and nothing more, of a record that has more."""
        return Servable(epoch=self.epoch, onnx=self.onnx, weights_sha256=self.weights_sha256, verdict=self.verdict)


class ServedModel(ClassRecord, ExportedFiles, Servable):
    """The payload of ``served.json``, the manifest of an exported graph that passed; all that a server needs to know.

    ``solver`` and ``guidance_scale`` are those that were measured. ``null_row`` says whether the model can be asked for no class: guidance takes it.
    """

    dataset: str
    null_row: bool = True
    guidance_scale: float = Field(ge=0)


class RegisteredRecord(Record):
    """A version in MLflow's model registry."""

    name: str
    version: str
    weights_sha256: Sha256
    onnx_sha256: Sha256
    source: str


class RollOutRecord(Record):
    """The result of a roll-out.

    ``uri`` is the published graph's address, ``revision`` the cluster's object and generation that serve it. Both are empty if no roll-out is
    configured.
    """

    backend: Literal["none", "deployment", "kserve"]
    uri: str
    onnx_sha256: Sha256
    revision: str
    outcome: Literal["promoted", "rolled back", "none"]
    reason: str = ""


class PromotionRecord(Record):
    """A promotion, recorded before the alias moves, in an append-only list."""

    name: str
    version: str
    previous_version: str
    verdict_digest: Sha256
    forget_set_version: str
    when: str


class ForgetOutcome(Strict):
    """The headline of the forget side. ``label`` is the class's name, unknown where a run ended before it could be looked up."""

    label: str | None
    n: int | None
    detections: int | None
    upper: float | None


class RetainOutcome(Strict):
    """The headline of the retain side."""

    accuracy_base: float
    accuracy_erased: float
    lower_bound: float | None
    fd_base: float | None
    fd_erased: float | None
    fd_change_upper: float | None


class ChampionOutcome(Strict):
    """The champion after the run."""

    name: str
    version: str
    weights_sha256: Sha256
    onnx_sha256: Sha256


class ForgetSetOutcome(Strict):
    """The forget set of the run."""

    version: str
    count: int


class Failure(Strict):
    """Why a run stopped: the step, a message, and the exit code."""

    step: str
    message: str
    exit_code: int


class Outcome(Strict):
    """``outcome.json``: the outcome of a run, written even after a failure.

    ``request`` is the id of the request that is due first. ``certificate`` and ``public_key`` are paths in the workdir.
    """

    verdict: Verdict | None
    attempt: int | None
    forget: ForgetOutcome
    retain: RetainOutcome | None
    champion: ChampionOutcome | None
    forget_set: ForgetSetOutcome | None
    report: str | None
    seconds: dict[str, float]
    error: Failure | None = None
    certificate: str | None = None
    public_key: str | None = None
    request: str | None = None
