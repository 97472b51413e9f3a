"""The lie: 'everything goes on', of a workdir of before in which one part still tells classes by positions, or by another list."""

from __future__ import annotations

import json
import shutil
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import pytest

from erasediff.attempts.workdir import Workdir
from erasediff.cli import main
from erasediff.data.datasets import load_dataset
from erasediff.envelopes import read_manifest
from erasediff.errors import BadInput, IntegrityError
from erasediff.evidence.keys import new_key
from erasediff.evidence.ledger import Ledger
from erasediff.evidence.signing import sign
from erasediff.files import sha256_bytes
from erasediff.records.base import canonical_json
from erasediff.records.config import DatasetConfig, RunConfig
from erasediff.records.core import MANIFEST, SERVED, BaseRecord, ErasedRecord, ExportedRecord, Outcome, ServedModel
from erasediff.records.measurements import Measurements
from erasediff.records.serving import load_rules, parse_rules
from erasediff.records.settings import NO_KEY
from erasediff.rollout.rules import name_positions
from erasediff.steps.migrate import Naming, migrate
from erasediff.tracking import CHAMPION, FORGOTTEN_TAG, MODEL_TAG, Tracking
from tests.digits import DIGITS
from tests.evidence.signed import key_in
from tests.issuer import issuer_key

FORMER = Path(__file__).parents[1] / "former"
NOW = datetime(2026, 12, 1, 12, tzinfo=UTC)
REQUEST = {"dataset": "digits", "scope": "class", "label": 7}
DATASET = "a6dffe2ce3dd88662cecdc3a0dcb1c6d0540f6d8845af96cdca2a102df554807"
"""The digest of the digits, which the plan of before was made from."""


@pytest.fixture
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workdir:
    """A workdir of before: an attempt, its champion in MLflow, a ledger and rules."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    workdir = Workdir.open(tmp_path / "work")
    with sqlite3.connect(workdir.root / "ledger.db") as database:
        database.executescript((FORMER / "ledger.sql").read_text())
    shutil.copy(FORMER / "rules.json", workdir.rules)
    folder = workdir.runs / "old-1"
    shutil.copytree(FORMER / "attempt", folder)
    (folder / "onnx").mkdir()
    served = json.loads(shutil.move(folder / "served.json", folder / "onnx/served.json").read_bytes())
    fields = {name: served[name] for name in ("onnx", "solvers", "solver", "weights_sha256", "verdict")}
    ExportedRecord(**fields, parity=(), forget_onnx=None, checks=()).write(folder / "exported.json")  # its form is as it was
    (folder / "config.json").write_bytes(RunConfig().canonical())
    plan = json.loads((folder / "plan.json").read_text())
    (folder / "plan.json").write_text(json.dumps(plan | {"config_digest": RunConfig().digest()}))
    workdir.current.write_text("old-1\n")
    workdir.keys.mkdir()
    (workdir.keys / f"{sha256_bytes(canonical_json(REQUEST))[:16]}.key").write_bytes(b"key")
    tracking = Tracking(workdir.root)
    run_id = tracking.start_run("class 7 of digits", {"erasediff.request": sha256_bytes(canonical_json(REQUEST))})
    tracking.log_artifacts(run_id, folder / "onnx", "onnx")
    model = json.loads((folder / "erased.json").read_text())["model"]
    tags = {"erasediff.model": canonical_json(model).decode(), "erasediff.forgotten": "7", "erasediff.onnx_sha256": served["onnx"]["sha256"]}
    tracking.set_alias("digits", CHAMPION, tracking.register("digits", "nowhere/model", run_id, tags))
    return workdir


def test_every_part_of_a_workdir_has_names_afterwards(workdir: Workdir) -> None:
    tracking = Tracking(workdir.root)
    with pytest.raises(BadInput, match=r"tells its classes by positions, .* run `erasediff migrate`"):
        tracking.recorded_model(tracking.alias("digits", CHAMPION))
    with pytest.raises(BadInput, match=r"7 is a number, .*`erasediff migrate`"):
        workdir.attempts()[0].plan()
    assert main(["migrate", "--by", "desk-1", "--workdir", str(workdir.root)]) == 0
    champion = tracking.alias("digits", CHAMPION)
    model = tracking.recorded_model(champion)
    assert (model.class_names, model.forgotten, model.epoch) == (DIGITS, ("7",), 1)
    assert (champion.tags[MODEL_TAG], champion.tags[FORGOTTEN_TAG]) == (model.digest(), "1")
    for folder in (signed_by_version(tracking, workdir), workdir.runs / "old-1/onnx"):
        served = read_manifest(folder, issuer_key().public)
        assert (served.class_names, served.forgotten) == (DIGITS, ("7",))
    assert load_rules(workdir.rules).suppress == ("3", "7")
    assert {facts.erasure.label for facts in Ledger.existing(workdir.root).requests()} == {"3", "7"}
    (attempt,) = workdir.attempts()
    assert (attempt.plan().request.label, attempt.plan().position) == ("7", 7)
    assert (attempt.need(BaseRecord).model.forgotten, attempt.need(ErasedRecord).model) == ((), model)
    assert attempt.need(Measurements).class_names == DIGITS
    assert Outcome.read(attempt.folder / "outcome.json").forget.label == "7"
    assert workdir.request_key(attempt.plan().request).read_bytes() == b"key"
    assert [run.info.run_id for run in tracking.runs_of_request(attempt.plan().request_id)] == [champion.run_id]


def signed_by_version(tracking: Tracking, workdir: Workdir) -> Path:
    """A folder with the manifest of the champion."""
    champion = tracking.alias("digits", CHAMPION)
    return tracking.download(f"{tracking.artifacts_of(champion, 'onnx')}/{MANIFEST}", workdir.root / "fetched").parent


def test_without_a_key_nothing_is_changed(workdir: Workdir, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("ERASEDIFF_SIGNING_KEY")
    before = left(workdir)
    assert main(["migrate", "--by", "desk-1", "--workdir", str(workdir.root)]) == 2
    assert NO_KEY in capsys.readouterr().err
    assert left(workdir) == before


def put(folder: Path, manifest: ServedModel) -> None:
    """As the version before this one wrote it: by names and unsigned."""
    manifest.write(folder / MANIFEST)


def test_what_an_earlier_version_or_an_earlier_key_left_is_signed_and_what_was_edited_is_not(workdir: Workdir, tmp_path: Path) -> None:
    """In a workdir of names. An edited manifest names another graph, or gives a class another name; then nothing is signed at all."""
    namings, key = [Naming("digits", "digits", DIGITS, None)], issuer_key().public
    assert migrate(workdir, namings, "desk-1", NOW).signed == 2
    folder, tracking = workdir.runs / "old-1/onnx", Tracking(workdir.root)
    signed = (folder / MANIFEST).read_bytes()
    assert migrate(workdir, namings, "desk-1", NOW).signed == 0
    assert (folder / MANIFEST).read_bytes() == signed
    served, champion = read_manifest(folder, key), tracking.alias("digits", CHAMPION)
    other = served.onnx.model_copy(update={"sha256": "0" * 64})
    edits = ({"onnx": other}, {"class_names": (*DIGITS[:8], "9", "8")}, {"epoch": 9}, {"solvers": other}, {"decoder": other}, {"data": (other,)})
    for changes in (*edits, {"guidance_scale": 7.5}, {"null_row": False}):
        edited = served.model_copy(update=changes)
        put(folder, edited)
        with pytest.raises(IntegrityError, match="the manifest of run old-1 does not say what was recorded of its model, so it is not signed"):
            migrate(workdir, namings, "desk-1", NOW)
        put(folder, served)
        put(tmp_path, edited)
        tracking.log_artifact(champion.run_id, tmp_path / MANIFEST, "onnx")
        with pytest.raises(IntegrityError, match="the manifest of version 1 of digits does not say"):
            migrate(workdir, namings, "desk-1", NOW)
        with pytest.raises(BadInput, match=r"is not signed, .* run `erasediff migrate`"):
            read_manifest(folder, key)
    put(tmp_path, served)
    tracking.log_artifact(champion.run_id, tmp_path / MANIFEST, "onnx")
    new_key(tmp_path / "earlier", None, NOW, None)
    (folder / MANIFEST).write_bytes(sign(served, SERVED, key_in(tmp_path / "earlier")))
    assert migrate(workdir, namings, "desk-1", NOW).signed == 2, "control: of today unsigned, and signed by an earlier key"
    assert read_manifest(folder, key) == read_manifest(signed_by_version(tracking, workdir), key) == served


def test_an_attempt_of_before_is_not_continued(workdir: Workdir) -> None:
    """Its records name digests of documents that told positions."""
    main(["migrate", "--by", "desk-1", "--workdir", str(workdir.root)])
    with pytest.raises(BadInput, match=r"was opened by an earlier version of EraseDiff .* open a new one with another --run"):
        workdir.attempt("old-1")
    with pytest.raises(BadInput, match="no run was opened"):
        workdir.attempt()


def test_migrating_twice_changes_nothing_more(workdir: Workdir) -> None:
    command = ["migrate", "--by", "desk-1", "--workdir", str(workdir.root)]
    main(command)
    before = {path: path.read_bytes() for path in workdir.runs.rglob("*.json")}, workdir.rules.read_bytes(), Ledger.existing(workdir.root).events()
    main(command)
    assert ({path: path.read_bytes() for path in workdir.runs.rglob("*.json")}, workdir.rules.read_bytes()) == before[:2]
    assert Ledger.existing(workdir.root).events() == before[2]


def test_a_dataset_that_has_changed_names_no_positions(workdir: Workdir) -> None:
    """Without digit 0, position 3 would be digit 4. Controls: the unchanged dataset, and a list of the operator's own, are taken."""
    assert load_dataset(DatasetConfig()).digest() == DATASET
    with pytest.raises(BadInput, match=r"is not the one that 'digits' was trained on, .* give --classes"):
        migrate(workdir, [Naming("digits", "digits", DIGITS[1:], "0" * 64)], "desk-1", NOW)
    assert "3" not in load_rules_of(workdir)
    migrate(workdir, [Naming("digits", "digits", DIGITS, None)], "desk-1", NOW)
    assert load_rules_of(workdir) == ("3", "7")


def load_rules_of(workdir: Workdir) -> tuple[object, ...]:
    return tuple(json.loads(workdir.rules.read_text())["suppress"])


def left(workdir: Workdir) -> dict[str, bytes]:
    return {
        str(path.relative_to(workdir.root)): path.read_bytes() for path in workdir.root.rglob("*") if path.is_file() and "mlflow" not in str(path)
    }


@pytest.mark.parametrize(
    ("naming", "state", "sentence"),
    [
        (Naming("digits", "digits", (*DIGITS, "10"), None), "SUPPRESSED", "version 1 of digits has 10 classes and 11 names are given"),
        (Naming("faces", "digits", DIGITS, None), "SUPPRESSED", "for dataset digits: give its configuration too"),
        (Naming("digits", "digits", DIGITS, None), "PURGED", "is PURGED: finish its purge and its certificate with the version"),
    ],
)
def test_what_cannot_be_named_as_a_whole_is_left_as_it_is(workdir: Workdir, naming: Naming, state: str, sentence: str) -> None:
    """Control: above, the same workdir is migrated."""
    if state == "PURGED":
        _end_at_purged(workdir)
    before = left(workdir)
    with pytest.raises(BadInput, match=sentence):
        migrate(workdir, [naming], "desk-1", NOW)
    assert left(workdir) == before


def _end_at_purged(workdir: Workdir) -> None:
    """Take the last event of the ledger back, which certified the first request."""
    with sqlite3.connect(workdir.root / "ledger.db") as database:
        (last,) = database.execute("SELECT max(number) FROM ledger_events").fetchone()
        database.execute("DELETE FROM ledger_events WHERE number = ?", (last,))
        number, request, digest = database.execute("SELECT number, request, digest FROM ledger_events ORDER BY number DESC LIMIT 1").fetchone()
        database.execute("UPDATE ledger_head SET number = ?, digest = ?", (number, digest))
        database.execute("UPDATE ledger_requests SET state = 'PURGED', head = ? WHERE id = ?", (digest, request))


def test_rules_keep_their_comments_and_what_has_names() -> None:
    text = "# by order\nminimum_epoch: 1\nsuppress: [3, cat] # at once\n"
    found = name_positions(text, [("a", "b", "c", "d"), ("x", "y")], "rules")
    assert found is not None
    assert "# by order" in found
    assert parse_rules(found, "rules").suppress == ("cat", "d")
    assert name_positions(found, [("a", "b")], "rules") is None
    with pytest.raises(BadInput, match="suppresses position 3, and no list of classes is that long"):
        name_positions(text, [("a", "b")], "rules")
