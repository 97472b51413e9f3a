"""The base of all records: frozen, strict, canonical JSON, identified by digest."""

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
    """Read JSON from outside and refuse duplicate keys, of which a parser would silently keep one.

    Raises:
        ValueError: it is not JSON, or has a duplicate key.
        RecursionError: it is nested too deep.
    """
    return json.loads(text, object_pairs_hook=_each_key_once)


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        ((name, _),) = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"the key {name[:100]!r} appears twice")
    return found


def what_is_wrong(said: str) -> str:
    """What pydantic says of a problem, to follow a colon. Names and patterns in it keep their case."""
    own = said.removeprefix("Value error, ")  # a sentence of this package
    return own if own != said or not said[1:2].islower() else said[:1].lower() + said[1:]


def first_problem(error: ValidationError) -> str:
    """The first problem that pydantic found, as ``where: what``."""
    problem = error.errors(include_url=False, include_input=False)[0]
    named = ".".join(str(part) for part in problem["loc"]) or "document"
    where = "".join(letter if letter.isprintable() else "?" for letter in named)[:200]  # the name of an unknown field comes from outside
    if problem["type"] == "extra_forbidden":
        return f"field '{where}' is not known"
    return f"field '{where}': {what_is_wrong(problem['msg'])}"


class Strict(BaseModel):
    """A frozen document; unknown fields, NaN and infinities are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def canonical(self) -> bytes:
        """This document as canonical JSON."""
        return canonical_json(self.model_dump(mode="json"))

    def digest(self) -> str:
        """Hex SHA-256 of the canonical JSON, which identifies the document."""
        return sha256_bytes(self.canonical())

    @classmethod
    def parse(cls, document: Any, source: str) -> Self:
        """Read a document that came from outside.

        Raises:
            BadInput: the document does not follow the schema; the message names ``source`` and the field.
        """
        try:
            parsed = cls.model_validate(document)
            parsed.canonical()
            return parsed
        except ValidationError as error:
            raise BadInput(f"{source} is not valid: {first_problem(error)}; correct it and run again.") from None
        except rfc8785.CanonicalizationError as error:  # an integer beyond 2^53 has no canonical JSON
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
    """A document that a step produces.

    ``made_from`` holds the digests of all inputs. A step whose record has the current ``made_from`` is up to date, which makes steps idempotent
    and runs resumable.
    """

    made_from: dict[str, str] = Field(default_factory=dict)


class Pointer(Strict):
    """The address and digest of a file. Weights, images and graphs are pointed to, never stored in a record."""

    uri: str
    sha256: Sha256
