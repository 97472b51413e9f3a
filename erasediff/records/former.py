"""What EraseDiff wrote when it told classes by positions: read to verify certificates of that time, and to migrate what goes on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from erasediff.errors import BadInput
from erasediff.records.base import Sha256, Strict
from erasediff.records.certificate import Lineage, Predicate, Scope, Statement
from erasediff.records.core import Verdict
from erasediff.records.requests import Approval, Clocks, Filing, Reason, Regime, RequestId, State
from erasediff.records.requests import Scope as RequestScope

FORMER_PREDICATE = "urn:erasediff:erasure:v1"
Position = Annotated[int, Field(ge=0, strict=True)]


class FormerErasure(Strict):
    """A request's class by its position."""

    dataset: str = Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9._-]+$")
    scope: Literal["class"] = "class"
    label: Position


class FormerModel(Strict):
    """A model whose classes have positions and no names: of its record and of the manifest that a server reads, what names them."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)

    classes: int = Field(ge=2)
    forgotten: tuple[Position, ...] = ()

    def named(self, class_names: Sequence[str], source: str) -> dict[str, Any]:
        """The document with names.

        Raises:
            BadInput: there are not as many names as classes.
        """
        if self.classes != len(class_names) or max(self.forgotten, default=0) >= self.classes:
            raise BadInput(f"{source} has {self.classes} classes and {len(class_names)} names are given: give --classes, a file with the right list.")
        rest = {name: value for name, value in self.model_dump(mode="json").items() if name != "classes"}
        return rest | {"class_names": list(class_names), "forgotten": [class_names[row] for row in self.forgotten]}


class FormerFiling(Filing):
    """The content of a request."""

    erasure: FormerErasure  # type: ignore[assignment]


class FormerFacts(Strict):
    """What others may know about a request."""

    id: RequestId
    regime: Regime
    scope: RequestScope
    erasure: FormerErasure
    clocks: Clocks
    state: State
    held: bool = False
    holds: tuple[Reason, ...] = ()
    verdict: Verdict | None = None
    waiting: Reason | None = None
    approvals: tuple[Approval, ...] = ()
    ledger_head: Sha256


class FormerScope(Scope):
    """The forgotten class."""

    label: Position  # type: ignore[assignment]
    forgotten: tuple[Position, ...]  # type: ignore[assignment]


class FormerLineage(Lineage):
    """The model that the erasure started from."""

    forgotten: tuple[Position, ...]  # type: ignore[assignment]


class FormerPredicate(Predicate):
    """The content of a certificate."""

    requests: tuple[FormerFacts, ...] = Field(max_length=4096)  # type: ignore[assignment]
    scope: FormerScope
    base: FormerLineage


class FormerStatement(Statement):
    """An in-toto Statement about an erasure, of the schema's first version."""

    predicateType: Literal["urn:erasediff:erasure:v1"]  # type: ignore[assignment]  # noqa: N815 - in-toto's own name
    predicate: FormerPredicate
