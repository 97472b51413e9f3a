"""Read YAML 1.2 strictly, and edit it while keeping comments.

Duplicate keys are refused, since a parser would silently keep one of them. So are types, tags and merge keys outside YAML 1.2's core schema.
``010`` is ten, ``yes`` is a string and ``2024-01-02`` is a string.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import SafeConstructor
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.nodes import CollectionNode, MappingNode, Node

from erasediff.errors import BadInput
from erasediff.files import read_bounded
from erasediff.records.base import MAX_DOCUMENT_BYTES

_TAG = "tag:yaml.org,2002:"
_CORE = {f"{_TAG}{name}" for name in ("str", "int", "float", "bool", "null", "seq", "map", "timestamp")}


class _Refused(Exception):
    """A problem of a document. ``{}`` in the problem stands for the quoted word; lines count from 0."""

    def __init__(self, problem: str, line: int, word: str = "") -> None:
        super().__init__(problem)
        self.problem, self.line, self.word = problem, line, word


class _Constructor(SafeConstructor):
    def check_mapping_key(self, node: Any, key_node: Any, mapping: Any, key: Any, value: Any) -> bool:
        """Refuse a key that is in the mapping already."""
        if key in mapping:
            raise _Refused("the key {} appears twice", key_node.start_mark.line, str(key))
        return True


_Constructor.add_constructor(f"{_TAG}timestamp", SafeConstructor.construct_yaml_str)  # YAML 1.2's core schema has no dates


def load_yaml(path: Path, what: str, *, quote: bool = True) -> Any:
    """Read a YAML file of limited size; see :func:`parse_yaml`.

    Raises:
        BadInput: missing, too large or refused.
    """
    return parse_yaml(read_bounded(path, MAX_DOCUMENT_BYTES, what), f"{what} {path}", quote=quote)


def parse_yaml(text: str | bytes, source: str, *, quote: bool = True) -> Any:
    """Read a YAML document: dicts, lists, strings, numbers, booleans and None.

    Args:
        text: one document; an empty one is None.
        source: the document's name in error messages.
        quote: whether error messages may quote the document.

    Raises:
        BadInput: it is not YAML 1.2, has a duplicate key or other types, or its aliases expand it beyond the limit.
    """
    yaml = YAML(typ="safe", pure=True)
    yaml.Constructor = _Constructor
    yaml.composer.warn_double_anchors = False
    line: int | None = None
    try:
        root = yaml.compose(text)
        if yaml.version not in (None, (1, 2)):
            raise _Refused("%YAML names another version", 0)
        if root is None:
            return None
        _measure(root, {})
        return yaml.constructor.construct_document(root)
    except _Refused as refused:
        found = refused.problem.format(repr(refused.word[:100] if quote else "?"))
        line = refused.line
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        found = _first_line(str(error.problem or error.context)) if quote else ""
        line = None if mark is None else mark.line
    except RecursionError:
        found = "it is nested too deep"
    except Exception as error:  # ruamel.yaml has no own error for a number of 5000 digits, an integer '-' or version 1.3
        found = _first_line(str(error) or type(error).__name__) if quote else ""
    where = ", ".join(part for part in (found, "" if line is None else f"line {line + 1}") if part)
    raise BadInput(f"{source} is not YAML 1.2{f' ({where})' if where else ''}: correct it and run again.")


def is_in_braces(text: str) -> bool:
    """Whether a document that :func:`parse_yaml` took is a mapping or a list in braces or brackets, which has its last one or would not parse."""
    root = YAML(typ="safe", pure=True).compose(text)
    return isinstance(root, CollectionNode) and bool(root.flow_style)


def _first_line(text: str) -> str:
    return text.splitlines()[0][:200]


def _measure(node: Node, sizes: dict[int, int | None]) -> int:
    """Roughly the length of a node with its aliases expanded; never more than the document's length if it has none.

    Args:
        node: what has been parsed, before anything is made of it.
        sizes: what is known by the identity of a node; None while it is measured.

    Raises:
        _Refused: it has too many, holds itself, or has a tag that is not of YAML 1.2's core.
    """
    line = node.start_mark.line
    if node.tag not in _CORE:
        word = node.value if node.value in ("<<", "=") else str(node.tag).replace(_TAG, "!!")
        raise _Refused("{} does not belong to its core", line, word)
    if not isinstance(node, CollectionNode):
        return max(1, len(node.value))
    if id(node) in sizes:
        known = sizes[id(node)]
        if known is None:
            raise _Refused("an alias refers to a node that contains it", line)
        return known
    sizes[id(node)] = None
    children = [child for pair in node.value for child in pair] if isinstance(node, MappingNode) else node.value
    size = 1 + sum(_measure(child, sizes) for child in children)
    if size > MAX_DOCUMENT_BYTES:
        raise _Refused(f"with its aliases expanded it has more than {MAX_DOCUMENT_BYTES} characters", line)
    sizes[id(node)] = size
    return size


def dump_yaml(document: Any) -> str:
    """A document as YAML; keys keep their order."""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]  # annotated as None
    return _written(yaml, document)


def edit_yaml(text: str, changes: Mapping[str, Any]) -> str:
    """Set some fields of a mapping. Order, quotes and comments of the rest stay, except comments in brackets or before ``---``.

    Args:
        text: a document that :func:`parse_yaml` took for a mapping, or an empty one.
        changes: the fields; one that is new comes first, and a list is made longer in its place where it only gets longer.
    """
    yaml = YAML()
    yaml.preserve_quotes = True
    document = yaml.load(text)
    if document is None:
        comments = f"{text.rstrip()}\n" if text.strip() else ""
        return f"{comments}{dump_yaml(dict(changes))}"
    for field, value in changes.items():
        present = document.get(field)
        if field not in document:
            document.insert(0, field, value)
        elif isinstance(value, list) and isinstance(present, list) and value[: len(present)] == present:
            present.extend(value[len(present) :])
        else:
            document[field] = value
    return _written(yaml, document)


def _written(yaml: YAML, document: Any) -> str:
    yaml.width = 1 << 20  # never wrap lines
    stream = io.StringIO()
    yaml.dump(document, stream)
    return stream.getvalue()
