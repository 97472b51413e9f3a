"""Name the classes in what an earlier version of EraseDiff wrote by positions: rules, registered models, attempts and the ledger. Sign manifests.

Attempts of before are converted so far that later purges read them; they are not continued. Certificates stay as they are. Each part is left alone
where it has names already, so a migration that was killed is run again.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from erasediff.attempts.attempt import FORMER
from erasediff.attempts.workdir import Workdir
from erasediff.cluster.api import Cluster
from erasediff.errors import BadInput
from erasediff.evidence.database import FILE
from erasediff.evidence.naming import Lists, check_ledger, name_ledger, name_of
from erasediff.evidence.purge.survey import ONNX_ARTIFACTS, REQUEST_TAG
from erasediff.evidence.signing import load_signing_key
from erasediff.files import sha256_bytes, write_atomic
from erasediff.records.base import canonical_json, load_json
from erasediff.records.core import MANIFEST, ErasureRequest, ModelRecord, ServedModel
from erasediff.records.former import FormerErasure, FormerModel
from erasediff.records.positions import PositionedRequest
from erasediff.records.serving import parse_rules
from erasediff.records.settings import LedgerSettings, RollOutSettings, SigningSettings
from erasediff.retries import retried
from erasediff.rollout.rules import ClusterRules, name_positions
from erasediff.steps.sign_manifests import has_manifest, manifests, sign_manifests
from erasediff.tracking import MODEL_TAG, Tracking, model_tags


@dataclass(frozen=True)
class Naming:
    """The classes of a dataset in the order of their positions, and the registered model that was trained on it.

    ``digest`` is that of the dataset, where the list is the dataset's and not the operator's own.
    """

    dataset: str
    model_name: str
    class_names: tuple[str, ...]
    digest: str | None


@dataclass(frozen=True)
class Migrated:
    """How many of each have names now, and how many manifests were signed."""

    versions: int
    attempts: int
    requests: int
    signed: int


def migrate(workdir: Workdir, namings: Sequence[Naming], by: str, now: datetime) -> Migrated:
    """Put names for positions everywhere, after checking that each has one, and sign manifests; the ledger comes last.

    Raises:
        BadInput: there is no signing key, a position has no name, a dataset is no longer the one that a model was trained on, or a request has to be
            finished first.
        IntegrityError: the ledger does not verify, or a manifest does not say what was recorded of its model.
    """
    key = load_signing_key(SigningSettings.load(), now)
    lists = {naming.dataset: naming.class_names for naming in namings}
    tracking, settings = Tracking(workdir.root), LedgerSettings.load()
    where = settings.where(workdir.root)
    has_ledger = where != workdir.root or (workdir.root / FILE).is_file()
    for naming in namings:
        _check_same_dataset(workdir, tracking, naming)
    if has_ledger:
        check_ledger(where, lists)
    versions = [former for naming in namings for former in _former_versions(tracking, naming)]
    attempts = [_former_attempt(folder, plan, lists) for folder, plan in _former_plans(workdir)]
    _name_rules(workdir, list(lists.values()))
    for version in versions:
        _name_version(tracking, version)
    for attempt in attempts:
        _name_attempt(workdir, tracking, attempt)
    if attempts:
        workdir.current.unlink(missing_ok=True)
        workdir.batch_file.unlink(missing_ok=True)
    signed = sign_manifests(manifests(workdir, tracking, [naming.model_name for naming in namings]), key)
    return Migrated(len(versions), len(attempts), name_ledger(where, lists, by, now) if has_ledger else 0, signed)


def _check_same_dataset(workdir: Workdir, tracking: Tracking, naming: Naming) -> None:
    """Positions are those of the dataset that models and attempts were made from; after a class was removed they would be others."""
    if naming.digest is None:
        return
    known = {version.tags["erasediff.dataset"] for version in tracking.versions(naming.model_name) if "erasediff.dataset" in version.tags}
    known |= {plan["made_from"].get("dataset") for _, plan in _former_plans(workdir) if plan["request"]["dataset"] == naming.dataset}
    if known - {naming.digest}:
        raise BadInput(
            f"dataset {naming.dataset} is not the one that {naming.model_name!r} was trained on, so its positions may be other classes: "
            "give --classes, a file with the names of the model's classes in their order, one a line."
        )


def _former_plans(workdir: Workdir) -> Iterable[tuple[Path, dict[str, Any]]]:
    for path in sorted(workdir.runs.glob("*/plan.json")):
        plan = _read(path)
        if type(plan["request"]["label"]) is int:
            yield path.parent, plan


def _read(path: Path) -> dict[str, Any]:
    return dict(load_json(path.read_bytes()))


def _name_rules(workdir: Workdir, lists: Sequence[Sequence[str]]) -> None:
    if workdir.rules.is_file() and (text := name_positions(workdir.rules.read_text(), lists, f"the rules {workdir.rules}")) is not None:
        parse_rules(text, f"the rules {workdir.rules}").write(workdir.rules)
    settings = RollOutSettings.load()
    if settings.backend == "none":
        return

    def change() -> None:
        with Cluster.connected(settings.namespace) as cluster:
            ClusterRules(cluster).name_positions(lists)

    retried(change)


@dataclass(frozen=True)
class FormerVersion:
    """A registered version, and the record of its model with names."""

    version: Any
    record: ModelRecord

    @property
    def source(self) -> str:
        """For sentences."""
        return f"version {self.version.version} of {self.version.name}"


def _former_versions(tracking: Tracking, naming: Naming) -> list[FormerVersion]:
    found = []
    for version in tracking.versions(naming.model_name):
        if (tag := version.tags.get(MODEL_TAG, "")).startswith("{"):
            source = f"version {version.version} of {naming.model_name}"
            document = FormerModel.parse_json(tag, source).named(naming.class_names, source)
            found.append(FormerVersion(version, ModelRecord.parse(document, source)))
    return found


def _name_version(tracking: Tracking, former: FormerVersion) -> None:
    version, record = former.version, former.record
    if tracking.find_run(version.run_id) is not None:
        tracking.log_model_record(version.run_id, record)
        _name_manifest(tracking, version, record.class_names, former.source)
    tags = model_tags(record)
    for key in sorted(tags, key=lambda key: key == MODEL_TAG):  # the tag that makes it a version of today comes last
        tracking.tag_version(version.name, str(version.version), key, tags[key])


def _name_manifest(tracking: Tracking, version: Any, class_names: Sequence[str], source: str) -> None:
    """Name the classes in the manifest of a version's exported graph, if it has one."""
    if not has_manifest(tracking, version):
        return
    with tempfile.TemporaryDirectory(prefix="erasediff-manifest-") as folder:
        path = tracking.download(f"{tracking.artifacts_of(version, ONNX_ARTIFACTS)}/{MANIFEST}", Path(folder))
        document = _read(path)
        if "classes" in document:
            ServedModel.parse(FormerModel.parse(document, source).named(class_names, source), source).write(path)
            tracking.log_artifact(version.run_id, path, ONNX_ARTIFACTS)


@dataclass(frozen=True)
class FormerAttempt:
    """An attempt of before: its folder, its plan, and its request by position and by name."""

    folder: Path
    plan: dict[str, Any]
    erasure: FormerErasure
    request: ErasureRequest
    class_names: Sequence[str]


def _former_attempt(folder: Path, plan: dict[str, Any], lists: Lists) -> FormerAttempt:
    source = f"the request of run {folder.name}"
    erasure = FormerErasure.parse(plan["request"], source)
    request = ErasureRequest.parse(erasure.model_dump() | {"label": name_of(erasure, lists)}, source)
    return FormerAttempt(folder, plan, erasure, request, lists[erasure.dataset])


def _name_attempt(workdir: Workdir, tracking: Tracking, former: FormerAttempt) -> None:
    for name, change in _CHANGES.items():
        for path in former.folder.glob(name):
            write_atomic(path, canonical_json(change(_read(path), former.class_names, path)) + b"\n")
    asked = PositionedRequest.of(former.request, former.class_names)
    _rename_request(workdir, tracking, former, asked)
    named = {
        "made_from": former.plan["made_from"] | {FORMER: sha256_bytes(canonical_json(former.plan))},
        "request": former.request.model_dump(mode="json"),
        "position": asked.position,
        "request_id": asked.digest(),
    }
    write_atomic(former.folder / "plan.json", canonical_json(former.plan | named) + b"\n")  # last: it says that all is done


def _rename_request(workdir: Workdir, tracking: Tracking, former: FormerAttempt, asked: PositionedRequest) -> None:
    """Keep what is found by a request's digest: the key of its commitments, the count of its tries, and its runs in MLflow."""
    before, after = former.erasure.digest(), former.request.digest()
    key = workdir.keys / f"{before[:16]}.key"
    if key.is_file() and not workdir.request_key(former.request).exists():
        key.rename(workdir.request_key(former.request))
    if workdir.tries.is_file():
        write_atomic(workdir.tries, workdir.tries.read_bytes().replace(before.encode(), after.encode()))
    for run in tracking.runs_of_request(before):
        tracking.tag_run(run.info.run_id, REQUEST_TAG, asked.digest())


def _with_model(document: dict[str, Any], class_names: Sequence[str], path: Path) -> dict[str, Any]:
    if "classes" not in document["model"]:
        return document
    return document | {"model": FormerModel.parse(document["model"], str(path)).named(class_names, str(path))}


def _measurements(document: dict[str, Any], class_names: Sequence[str], _: Path) -> dict[str, Any]:
    rest = {name: value for name, value in document.items() if name != "classes"}
    return {"unseen": []} | rest | {"class_names": list(class_names)}


def _outcome(document: dict[str, Any], class_names: Sequence[str], _: Path) -> dict[str, Any]:
    label = document["forget"]["label"]
    return document | {"forget": document["forget"] | {"label": class_names[label] if type(label) is int else label}}


def _manifest(document: dict[str, Any], class_names: Sequence[str], path: Path) -> dict[str, Any]:
    return FormerModel.parse(document, str(path)).named(class_names, str(path)) if "classes" in document else document


def _requests(document: dict[str, Any], class_names: Sequence[str], _: Path) -> dict[str, Any]:
    def named(facts: dict[str, Any]) -> dict[str, Any]:
        label = facts["erasure"]["label"]
        return {"unchecked": False} | facts | {"erasure": facts["erasure"] | {"label": class_names[label] if type(label) is int else label}}

    return document | {"requests": [named(facts) for facts in document["requests"]]}


_CHANGES = {
    "base.json": _with_model,
    "erased.json": _with_model,
    "measurements.json": _measurements,
    "outcome.json": _outcome,
    "requests.json": _requests,
    f"onnx/{MANIFEST}": _manifest,
}
"""What is converted in the folder of an attempt, beside its plan."""
