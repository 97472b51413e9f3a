"""The nouns on the way of the data, as records.

Their order:

    request -> forget set -> erased model -> measurements -> verdict -> exported model -> registered version -> roll-out -> promotion
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Literal

from pydantic import Field

from erasediff.errors import BadInput
from erasediff.records.attacks import Detections
from erasediff.records.base import Pointer, Probability, Record, Sha256, Strict, canonical_json, load_json


class Verdict(StrEnum):
    """The three answers of a gate. Only PASS promotes."""

    PASS = "PASS"  # noqa: S105 - not a password
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"


class ErasureRequest(Strict):
    """What is to be forgotten. It names a scope, never a person.

    Two requests with the same content are the same request: the digest is the idempotency key.
    """

    dataset: str = Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9._-]+$")
    scope: Literal["class"] = "class"
    label: int = Field(ge=0)


def requests_of(text: str) -> tuple[ErasureRequest, ...]:
    """The requests of one run from their JSON, which is that of one request or a list of several.

    Raises:
        BadInput: it is neither.
    """
    try:
        document = load_json(text)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"the request is not JSON ({error}): correct it and run again.") from None
    asked = document if isinstance(document, list) else [document]
    found = tuple(dict.fromkeys(ErasureRequest.parse(one, "the request") for one in asked))
    if not found or len({request.dataset for request in found}) > 1:
        raise BadInput("one run erases from one dataset: name at least one request, and none of another dataset.")
    return found


def requests_text(requests: Sequence[ErasureRequest]) -> str:
    """What :func:`requests_of` reads."""
    documents = [request.model_dump(mode="json") for request in requests]
    return canonical_json(documents[0] if len(documents) == 1 else documents).decode()


class PlanRecord(Record):
    """One attempt at a request, as it was fixed before anything ran.

    ``batch`` names the attempts whose requests are erased together with this one's, itself among them, the earliest due first; it is empty for an
    attempt that is alone.
    """

    run: str
    attempt: int = Field(ge=1)
    request: ErasureRequest
    batch: tuple[str, ...] = ()
    config_digest: Sha256
    policy_digest: Sha256
    seed_commitment: Sha256
    mlflow_run_id: str


class ModelRecord(Record):
    """A class-conditional diffusion model in diffusers layout, and what it has forgotten.

    ``epoch`` counts the erasures behind it: what serves must not fall below one that has been promoted.
    """

    dataset: str
    classes: int = Field(ge=2)
    forgotten: tuple[int, ...] = ()
    epoch: int = Field(default=0, ge=0)
    weights: Pointer
    folder_sha256: Sha256


class Judges(Strict):
    """Digests of who will judge an attempt: the classifier, the real images that are neighbours, and the extractor of features."""

    classifier: Sha256
    neighbours: Sha256
    features: Sha256


class BaseRecord(Record):
    """The champion that this attempt starts from, and who will judge the attempt: both pinned before the erasure.

    ``drift`` is the factor by which earlier erasures changed the Fréchet distance of retained classes; ``None`` if it is not known.
    """

    name: str
    version: str
    model: ModelRecord
    drift: float | None = Field(default=1.0, gt=0)
    judges: Judges | None = None


class ForgetSetRecord(Record):
    """The forget set as DVC knows it, and the split it came from. It holds counts and digests, never images or names.

    ``version`` and ``manifest_sha256`` are hashes of files that carry a commitment under the request's key, and the ``hmac`` of positions are
    commitments under it: once the purge has destroyed the key, none of them can be held against an image.
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


class ErasedRecord(Record):
    """The model after the erasure, and what the erasure cost."""

    model: ModelRecord
    steps: int
    forward_passes: int
    backward_passes: int
    ema_base_share: Probability
    curves: Pointer


Unit = Literal["share", "difference", "relative", "number"]
"""How a check's number reads: a share of samples, a difference of shares, a change relative to the base, a plain number."""


class Check(Strict):
    """One line of the gate's table."""

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
    """The gate's answer with the policy it was given under.

    ``attempt`` counts the tries at this request that the gate has judged, ``alpha`` is what this one was judged at, and
    ``alpha_spent`` what all of them were. ``checks`` decided, ``reported`` did not.
    ``evaluation_key`` is the key that the plan committed to: now anyone may draw the images again.
    """

    verdict: Verdict
    attempt: int = Field(ge=1)
    alpha: Probability
    alpha_spent: Probability
    evaluation_key: Sha256
    policy_digest: Sha256
    checks: tuple[Check, ...]
    reported: tuple[Check, ...] = ()


class Try(Strict):
    """What a step said of an attempt at a request. Lines of these are only ever added."""

    request: Sha256
    plan: Sha256
    step: str
    verdict: Verdict


class Parity(Strict):
    """How far the exported graph is from the denoiser it was exported from."""

    batch: int
    timestep: int
    max_relative_error: float = Field(ge=0)


class ExportedRecord(Record):
    """The ONNX graph, bound to the weights it came from, with its own verdict (F8); on tier 2 also of the graph with weights of 8 bits.

    ``solvers`` is a file with a solver's table of coefficients, ``solver`` its name: the one that the verdict is about.
    """

    onnx: Pointer
    solvers: Pointer
    solver: str
    weights_sha256: Sha256
    parity: tuple[Parity, ...]
    forget_onnx: Detections | None
    forget_int8: Detections | None = None
    verdict: Verdict
    checks: tuple[Check, ...]


def verdict_in(record: Record) -> Verdict:
    """What a decision says: the gate's, or that on the exported graph."""
    assert isinstance(record, VerdictRecord | ExportedRecord)
    return record.verdict


MANIFEST = "served.json"
"""The name of a :class:`ServedModel` in the folder that it describes; a folder without it is no model."""


class ServedModel(Record):
    """``served.json``: what lies beside an exported graph that passed, and all that a server has to know of it.

    ``solver`` is the one that the verdict is about, ``guidance_scale`` the scale that was measured.
    """

    dataset: str
    classes: int = Field(ge=2)
    forgotten: tuple[int, ...]
    epoch: int = Field(ge=0)
    onnx: Pointer
    solvers: Pointer
    solver: str
    guidance_scale: float = Field(ge=0)
    weights_sha256: Sha256
    verdict: Verdict


class RegisteredRecord(Record):
    """A version in MLflow's model registry."""

    name: str
    version: str
    weights_sha256: Sha256
    onnx_sha256: Sha256
    source: str


class RollOutRecord(Record):
    """What came of bringing a graph up beside the champion.

    ``uri`` is where the graph was published, ``revision`` what the cluster calls the version that serves it: an object and its generation. Both are
    empty where no roll-out is configured.
    """

    backend: Literal["none", "deployment", "kserve"]
    uri: str
    onnx_sha256: Sha256
    revision: str
    outcome: Literal["promoted", "rolled back", "none"]
    reason: str = ""


class PromotionRecord(Record):
    """An alias about to move, written before it moves. Promotion records are only ever added."""

    name: str
    version: str
    previous_version: str
    verdict_digest: Sha256
    forget_set_version: str
    when: str


class ForgetOutcome(Strict):
    """The headline of the forget side."""

    label: int
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
    """What serves after the run."""

    name: str
    version: str
    weights_sha256: Sha256
    onnx_sha256: Sha256


class ForgetSetOutcome(Strict):
    """Which forget set it was."""

    version: str
    count: int


class Failure(Strict):
    """Why a run stopped: the step, one sentence, and the exit code it means."""

    step: str
    message: str
    exit_code: int


class Outcome(Strict):
    """``outcome.json``: what came of a run, written whatever happened.

    ``request`` is the id of the request that the run answers, the one due first of several. ``certificate`` and the ``public_key`` that it is checked
    with are paths in the workdir.
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
