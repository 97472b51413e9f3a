"""Requests as Kubeflow gets them. It keeps its parameters for ever, so a class is told there by its position, which names nobody.

A position means nothing without its list of classes. So the digest of the list goes along, and whoever receives the request looks the position up in
a list with that digest, and in no other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, Self

from pydantic import Field

from erasediff.errors import BadInput
from erasediff.records.base import Sha256, Strict, canonical_json, load_json
from erasediff.records.core import ErasureRequest
from erasediff.records.names import names_digest


class PositionedRequest(Strict):
    """The class to forget, by its position in a list of class names, from 0."""

    dataset: str = Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9._-]+$")
    scope: Literal["class"] = "class"
    position: int = Field(ge=0, strict=True)
    classes_sha256: Sha256

    @classmethod
    def of(cls, request: ErasureRequest, class_names: Sequence[str]) -> Self:
        """The request with the class's position in a list.

        Raises:
            BadInput: the list lacks the class.
        """
        if request.label not in class_names:
            raise BadInput(f"a class to forget is not among the {len(class_names)} classes of {request.dataset}: request one of them.")
        return cls(dataset=request.dataset, scope=request.scope, position=class_names.index(request.label), classes_sha256=names_digest(class_names))

    def named(self, lists: Iterable[Sequence[str]]) -> ErasureRequest:
        """The request with the class's name, from the first of several lists that has the digest.

        Raises:
            BadInput: none has it, or its position is beyond the list.
        """
        for class_names in lists:
            if names_digest(class_names) == self.classes_sha256:
                if self.position >= len(class_names):
                    raise BadInput(f"position {self.position} is beyond the {len(class_names)} classes of {self.dataset}: submit the request again.")
                return ErasureRequest(dataset=self.dataset, scope=self.scope, label=class_names[self.position])
        raise BadInput(
            f"the classes of {self.dataset} are not those of the submission, so position {self.position} may be another class now: "
            "submit the request again with the present dataset, or with --classes and the list of its names."
        )


def positioned_text(requests: Sequence[ErasureRequest], class_names: Sequence[str]) -> str:
    """Requests as the JSON that :func:`positioned_requests` parses."""
    documents = [PositionedRequest.of(request, class_names).model_dump(mode="json") for request in requests]
    return canonical_json(documents[0] if len(documents) == 1 else documents).decode()


def positioned_requests(text: str) -> tuple[PositionedRequest, ...]:
    """Parse the requests of one run from JSON: one request, or a list of requests.

    Raises:
        BadInput: it is neither.
    """
    try:
        document = load_json(text)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"the request is not JSON ({error}): correct it and run again.") from None
    asked = document if isinstance(document, list) else [document]
    found = tuple(dict.fromkeys(PositionedRequest.parse(one, "the request") for one in asked))
    if not found or len({request.dataset for request in found}) > 1:
        raise BadInput("one run erases from one dataset: give at least one request, all of the same dataset.")
    return found


def told(positions: Sequence[int], dataset: str) -> str:
    """Classes by their positions, as logs, MLflow and Kubeflow may tell of them."""
    return f"{'class at position' if len(positions) == 1 else 'classes at positions'} {', '.join(map(str, positions))} of {dataset}"
