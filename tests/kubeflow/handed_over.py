"""What a run hands to Kubeflow, and a search of it for words, in whatever form they stand there."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from pipelines.compile import COMPILED

FULL_NAME = "Wrocławianka Featherstonehaugh"
PLACE = "Tütüncüoğlustraße"
WORDS = (*FULL_NAME.split(), PLACE)
"""No file of the project holds them, and each is long enough to be recognised within base64."""
CONCEPT = {
    "concept": [{"prompt": f"a portrait of {FULL_NAME}"}, {"prompt": f"{FULL_NAME} in {PLACE}", "otherwise": [f"{PLACE}, with {FULL_NAME}"]}],
    "anchors": ["a portrait of a woman"],
    "retained": ["a street", "a woman in a street"],
}
"""A concept document, as `judge-concept` reads one."""
REPORT = "report"
"""The artifact of the one page that shows the names of classes; docs/kubeflow.md says so."""


def _spellings(word: str) -> set[str]:
    """A word as it is and as JSON, JSON within JSON, Python and a URL spell it; upper and lower case are one."""
    once = json.dumps(word)[1:-1]
    twice = json.dumps(once)[1:-1]
    return {text.casefold() for text in (word, once, twice, json.dumps(twice)[1:-1], quote(word), repr(word.encode())[2:-1])}


def _in_base64(word: str) -> set[bytes]:
    """What base64 makes of a word wherever it begins, without the letters that depend on what stands beside it."""
    found = set()
    for before in range(3):
        data = bytes(before) + word.encode()
        letters = base64.b64encode(data)[-(-before * 8 // 6) : len(data) * 8 // 6]
        found |= {letters, letters.translate(bytes.maketrans(b"+/", b"-_"))}
    return found


def holding(words: Iterable[str], things: Mapping[str, bytes]) -> list[str]:
    """The names of the things that hold one of the words, in their names or in themselves."""
    cases = {cased for word in words for cased in (word, word.lower(), word.upper())}
    spelled, packed = {form for word in cases for form in _spellings(word)}, {form for word in cases for form in _in_base64(word)}

    def holds(data: bytes) -> bool:
        text = data.decode(errors="replace").casefold()
        return any(form in text for form in spelled) or any(form in data for form in packed)

    return sorted(name for name, data in things.items() if holds(name.encode() + b"\n" + data))


def compiled_files() -> dict[str, bytes]:
    """The compiled pipelines: every pod's specification, with its variables, labels and annotations."""
    return {path.name: path.read_bytes() for path in COMPILED.glob("*.yaml")}


@dataclass(frozen=True)
class LocalRun:
    """What kfp's local runner starts and stores, kept by the ``python`` that it starts; it deletes its store with the run.

    TMPDIR has to be ``scratch``, where kfp makes its store.
    """

    folder: Path

    @property
    def scratch(self) -> Path:
        """Where the processes have their temporary files."""
        return self.folder / "scratch"

    def by(self, python: Path) -> Path:
        """Put a program that records in the place of another ``python``, which it starts."""
        kept, started, other = self.folder / "store", self.folder / "started", python.with_name("python-unrecorded")
        for folder in (self.scratch, kept, started):
            folder.mkdir()
        python.rename(other)
        script = (
            "#!/bin/sh\n"
            f'(printf "%s\\n" "$@"; env) > {started}/$$\n'
            f'{other} "$@"\n'
            "code=$?\n"
            f"for store in {self.scratch}/erasediff-kfp-*; do\n"
            f'    [ -d "$store" ] && cp -r "$store"/. {kept}\n'
            "done\n"
            "exit $code\n"
        )
        python.write_text(script)
        python.chmod(0o755)
        return python

    def started(self) -> dict[str, bytes]:
        """The words and the environment of each process: the parameters of the run, and each task's inputs."""
        return {f"started/{path.name}": path.read_bytes() for path in (self.folder / "started").iterdir()}

    def store(self) -> dict[str, bytes]:
        """The outputs of all tasks: parameters, metrics, the artifacts and what is said of them; without the report."""
        kept = self.folder / "store"
        files = {str(path.relative_to(kept)): path for path in sorted(kept.rglob("*")) if path.is_file()}
        return {f"store/{name}": path.read_bytes() for name, path in files.items() if path.name != REPORT}

    def report(self) -> bytes:
        """The report, as Kubeflow gets it."""
        (path,) = (path for path in (self.folder / "store").rglob(REPORT) if path.is_file())
        return path.read_bytes()
