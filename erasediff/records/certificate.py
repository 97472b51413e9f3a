"""The certificate of an erasure: an in-toto Statement v1, and the records beside it.

https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import AwareDatetime, Field, model_validator

from erasediff.records.base import Pointer, Probability, Record, Sha256, Strict, canonical_json
from erasediff.records.core import Check, Comparison, Verdict
from erasediff.records.names import ClassName
from erasediff.records.purging import PurgeLine
from erasediff.records.requests import RequestFacts

STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
IN_TOTO: Final = "application/vnd.in-toto+json"
CERTIFICATE: Final = "certificate.dsse.json"
"""The certificate's file in the run's folder."""
PREDICATE_TYPE: Final = "urn:erasediff:erasure:v2"

Phase = Literal["provisional", "final"]
SubjectName = Literal["weights folder", "weights", "ONNX graph", "ONNX weights", "ONNX decoder", "solver tables", "serving image"]
Algorithm = Literal["sha256", "sha256-folder"]
"""``sha256-folder`` is :func:`erasediff.files.sha256_folder`: SHA-256 over one line ``path NUL sha256`` per file, sorted by path."""
ThreatName = Literal["membership inference", "attribute inference", "exfiltration", "regurgitation", "inversion", "reconstruction"]


class StatementSubject(Strict):
    """One artifact that the certificate is about."""

    name: SubjectName
    digests: dict[Algorithm, Sha256] = Field(alias="digest", min_length=1, max_length=1)


class Scope(Strict):
    """The forgotten class and all that the model has forgotten, by their names, and how many erasures the model has had."""

    dataset: str = Field(max_length=64)
    scope: Literal["class"]
    label: ClassName
    forgotten: tuple[ClassName, ...]
    epoch: int = Field(ge=0)


class ForgetSet(Strict):
    """The forget set as an HMAC under its own key, which the purge destroys. A plain digest of images would be pseudonymous data."""

    commitment: Sha256
    count: int = Field(ge=1)
    retain_count: int = Field(ge=1)
    comparison: Comparison | None = Field(default=None, exclude_if=lambda comparison: comparison is None)


class Lineage(Strict):
    """The model that the erasure started from."""

    name: str = Field(max_length=120)
    version: str = Field(max_length=40)
    weights_sha256: Sha256
    folder_sha256: Sha256
    forgotten: tuple[ClassName, ...]
    epoch: int = Field(ge=0)


class Making(Strict):
    """What determined the result. ``code_revision`` is the commit of the code that wrote the certificate, if known."""

    code_version: str = Field(max_length=40)
    code_revision: str | None = Field(default=None, pattern=r"^[0-9a-f]{7,40}$")
    config_sha256: Sha256
    policy_sha256: Sha256
    seed: int = Field(ge=0)
    seed_commitment: Sha256
    evaluation_key: Sha256
    records: dict[str, Sha256] = Field(max_length=32)
    """The digest of every record of the run, by name."""


class Judged(Strict):
    """The verdicts of the gate and of the exported graph. ``controls`` show that the gate could have failed."""

    verdict: Verdict
    attempt: int = Field(ge=1)
    alpha: Probability
    alpha_spent: Probability
    controls: tuple[Check, ...] = Field(max_length=64)
    checks: tuple[Check, ...] = Field(min_length=1, max_length=512)
    reported: tuple[Check, ...] = Field(max_length=512)
    left_out: tuple[str, ...] = Field(default=(), max_length=64, exclude_if=lambda left_out: not left_out)


class Serving(Strict):
    """The roll-out, and the revoked models."""

    backend: Literal["none", "deployment", "kserve"]
    outcome: Literal["promoted", "rolled back", "none"]
    onnx_sha256: Sha256
    promoted_version: str | None = Field(max_length=40)
    revoked: tuple[Sha256, ...] = Field(max_length=4096)
    minimum_epoch: int = Field(ge=0)


class CertifiedPurge(Strict):
    """The purge: the digest of its record, and its lines."""

    record: Sha256
    lines: tuple[PurgeLine, ...] = Field(max_length=4096)


class Threat(Strict):
    """One attack of EDPB Opinion 28/2024, paragraph 55: the checks that carry it out, or why none does."""

    threat: ThreatName
    executed: bool
    checks: tuple[str, ...] = Field(max_length=64)
    verdicts: tuple[Verdict, ...] = Field(max_length=64)
    note: str = Field(max_length=400)

    @model_validator(mode="after")
    def _executed_by_something(self) -> Self:
        if self.executed != bool(self.checks) or len(self.checks) != len(self.verdicts):
            raise ValueError("an executed attack needs checks and one verdict each; another must have none")
        return self


class Predicate(Strict):
    """The content of a certificate."""

    phase: Phase
    issued_at: AwareDatetime
    requests: tuple[RequestFacts, ...] = Field(max_length=4096)
    scope: Scope
    forget_set: ForgetSet
    base: Lineage
    making: Making
    judged: Judged
    serving: Serving
    purge: CertifiedPurge | None
    coverage: tuple[Threat, ...] = Field(min_length=6, max_length=6)
    limitations: tuple[Annotated[str, Field(max_length=600)], ...] = Field(min_length=1, max_length=64)

    @model_validator(mode="after")
    def _final_after_the_purge(self) -> Self:
        if (self.phase == "final") != (self.purge is not None):
            raise ValueError("a certificate is final with a purge, and provisional without one")
        return self


class Statement(Strict):
    """An in-toto Statement v1 about an erasure."""

    type: Literal["https://in-toto.io/Statement/v1"] = Field(alias="_type")
    subject: tuple[StatementSubject, ...] = Field(min_length=1, max_length=8)
    predicateType: Literal["urn:erasediff:erasure:v2"]  # noqa: N815 - in-toto's own name
    predicate: Predicate

    def canonical(self) -> bytes:
        """This statement as canonical JSON, with in-toto's field names."""
        return canonical_json(self.model_dump(mode="json", by_alias=True))

    def digest_of(self, name: SubjectName) -> str | None:
        """The digest of a subject, or ``None`` if the statement lacks it."""
        return next((value for subject in self.subject if subject.name == name for value in subject.digests.values()), None)


class RequestsRecord(Record):
    """The requests that an erasure fulfils, as in the ledger at the time of writing: ``requests.json`` in the run's folder."""

    requests: tuple[RequestFacts, ...] = Field(max_length=4096)


class CommitmentRecord(Record):
    """The commitment to the forget set, made once; its key exists until the purge."""

    hmac_sha256: Sha256


class CertificateRecord(Record):
    """An issued certificate and the files beside it."""

    phase: Phase
    issued_at: AwareDatetime
    key_id: Sha256
    statement: Sha256
    files: tuple[Pointer, ...] = Field(min_length=1, max_length=4200)
