"""What every record has in common: frozen, strict, canonical as JSON, named by its digest."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Self

import rfc8785
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from erasediff.errors import BadInput
from erasediff.files import read_bounded, sha256_bytes, write_atomic

MAX_DOCUMENT_BYTES = 4 << 20

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Probability = Annotated[float, Field(ge=0.0, le=1.0)]


def canonical_json(value: Any) -> bytes:
    """Canonical JSON by RFC 8785: the same value always gives the same bytes."""
    return rfc8785.dumps(value)


def load_json(text: str | bytes) -> Any:
    """Read JSON from outside, in which no object names a key twice: a reader would see one value, and this program take the other.

    Raises:
        ValueError: it is not JSON, or a key stands twice.
        RecursionError: it is nested too deep.
    """
    return json.loads(text, object_pairs_hook=_each_key_once)


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        ((name, _),) = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"the key {name[:100]!r} stands twice")
    return found


def first_problem(error: ValidationError) -> str:
    """Say the first thing pydantic found wrong as ``where: what``."""
    problem = error.errors(include_url=False, include_input=False)[0]
    named = ".".join(str(part) for part in problem["loc"]) or "document"
    where = "".join(letter if letter.isprintable() else "?" for letter in named)[:200]  # an unknown field's name is whatever came in
    if problem["type"] == "extra_forbidden":
        return f"field '{where}' is not known"
    return f"field '{where}': {problem['msg'].lower()}"


class Strict(BaseModel):
    """A frozen document in which an unknown field, a NaN or an infinity is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def canonical(self) -> bytes:
        """This document as canonical JSON."""
        return canonical_json(self.model_dump(mode="json"))

    def digest(self) -> str:
        """Hex SHA-256 of the canonical JSON: the document's name everywhere else."""
        return sha256_bytes(self.canonical())

    @classmethod
    def parse(cls, document: Any, source: str) -> Self:
        """Read a document that came from outside.

        Raises:
            BadInput: the document does not follow the schema; the sentence names ``source`` and the field.
        """
        try:
            parsed = cls.model_validate(document)
            parsed.canonical()
            return parsed
        except ValidationError as error:
            raise BadInput(f"{source} is not valid: {first_problem(error)}; correct it and run again.") from None
        except rfc8785.CanonicalizationError as error:  # an integer beyond 2^53 has no canonical JSON, so no digest
            raise BadInput(f"{source} is not valid: {error}; correct it and run again.") from None

    @classmethod
    def parse_json(cls, text: str | bytes, source: str) -> Self:
        """Read a JSON document; see :meth:`parse`."""
        try:
            document = load_json(text)
        except (ValueError, RecursionError) as error:
            raise BadInput(f"{source} is not JSON ({error}): correct it and run again.") from None
        return cls.parse(document, source)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a JSON document from a file; see :meth:`parse`."""
        return cls.parse_json(read_bounded(path, MAX_DOCUMENT_BYTES, "the record"), str(path))

    def write(self, path: Path) -> None:
        """Write the document as canonical JSON, atomically."""
        write_atomic(path, self.canonical() + b"\n")


class Record(Strict):
    """A noun on the way of the data.

    ``made_from`` names the digests of everything that decided this record's content. A step that finds its record with
    the same ``made_from`` has nothing left to do, which is what makes steps idempotent and runs resumable.
    """

    made_from: dict[str, str] = Field(default_factory=dict)


class Pointer(Strict):
    """Where bytes lie and what they must be. Weights, images and graphs travel as pointers, never inside a record."""

    uri: str
    sha256: Sha256
