"""The lies: 'certified', of records that do not fit together; 'final', of a purge that is not done; 'executed', of an attack that was not made."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from erasediff.attempts.attempt import Attempt
from erasediff.errors import BadInput, IntegrityError
from erasediff.evidence.certificate import Facts, commitment_to, statement_of
from erasediff.evidence.coverage import THREATS, coverage
from erasediff.evidence.keys import PUBLIC
from erasediff.evidence.signing import sign
from erasediff.evidence.verification import CertificateFiles, verify
from erasediff.files import sha256_file
from erasediff.records.base import Pointer
from erasediff.records.certificate import IN_TOTO, CommitmentRecord, Statement
from erasediff.records.core import (
    BaseRecord,
    Check,
    ErasedRecord,
    ExportedRecord,
    ForgetSetRecord,
    PromotionRecord,
    RegisteredRecord,
    RollOutRecord,
    Verdict,
    VerdictRecord,
)
from erasediff.records.purging import PurgeRecord
from tests.certified import HMAC_KEY, UNFINISHED, purge_of, request
from tests.evidence.signed import key_in
from tests.exported import describe

AT = datetime(2026, 3, 3, 9, tzinfo=UTC)
NOT_REGISTERED: dict[str, Any] = {"registered": None, "rolled_out": None, "promotion": None}


@pytest.fixture
def facts(run: Attempt) -> Facts:
    forget_set = run.need(ForgetSetRecord)
    return Facts(
        plan=run.plan(),
        base=run.need(BaseRecord),
        forget_set=forget_set,
        erased=run.need(ErasedRecord),
        verdict=run.need(VerdictRecord),
        exported=run.need(ExportedRecord),
        commitment=CommitmentRecord(hmac_sha256=commitment_to(forget_set, HMAC_KEY)),
        seed=0,
        registered=run.need(RegisteredRecord),
        rolled_out=run.need(RollOutRecord),
        promotion=run.need(PromotionRecord),
    )


def changed(record: Any, **changes: Any) -> Any:
    return record.model_copy(update=changes)


def purged(facts: Facts, run: Attempt, **changes: Any) -> Facts:
    requests = (request(1), request(2))
    return replace(facts, requests=requests, purge=purge_of(run, *requests, **changes))


def test_without_a_purge_it_is_provisional_and_with_one_that_fits_final(facts: Facts, run: Attempt) -> None:
    provisional, final = statement_of(facts, AT), statement_of(purged(facts, run), AT)
    assert (provisional.predicate.phase, provisional.predicate.purge) == ("provisional", None)
    assert final.predicate.phase == "final"
    assert final.predicate.purge is not None
    assert final.predicate.purge.record == run.need(PurgeRecord).digest()
    assert [subject.name for subject in final.subject] == ["weights folder", "weights", "ONNX graph", "solver tables"]
    assert statement_of(replace(facts, serving_image="8" * 64), AT).digest_of("serving image") == "8" * 64


def test_weights_outside_the_graph_are_certified_and_verified_with_it(facts: Facts, keys: Path, tmp_path: Path) -> None:
    """The graph alone is structure: its digest does not cover the file beside it."""
    graph, data = tmp_path / "model.onnx", tmp_path / "model.onnx.data"
    for path in (graph, data):
        path.write_bytes(path.name.encode())
    onnx, weights = (Pointer(uri=f"onnx/{path.name}", sha256=sha256_file(path)) for path in (graph, data))
    statement = statement_of(replace(facts, exported=changed(facts.exported, onnx=onnx, data=(weights,)), **NOT_REGISTERED), AT)
    assert statement.digest_of("ONNX weights") == weights.sha256
    certificate = tmp_path / "certificate.dsse.json"
    certificate.write_bytes(sign(statement, IN_TOTO, key_in(keys)))
    presented = CertificateFiles(certificate=certificate, key=keys / PUBLIC, onnx=graph)
    assert "ONNX graph" in verify(presented).checks_passed, "control"
    data.write_bytes(b"others")
    with pytest.raises(IntegrityError, match=r"model\.onnx\.data, which holds the weights of the graph, is not the certified one"):
        verify(presented)
    data.unlink()
    with pytest.raises(IntegrityError, match="is not the certified one"):
        verify(presented)


def test_the_decoder_of_a_latent_model_is_certified(facts: Facts) -> None:
    decoder = Pointer(uri="onnx/decoder.onnx", sha256="d" * 64)
    statement = statement_of(replace(facts, exported=changed(facts.exported, decoder=decoder), **NOT_REGISTERED), AT)
    assert statement.digest_of("ONNX decoder") == decoder.sha256
    assert statement_of(facts, AT).digest_of("ONNX decoder") is None, "control"


def test_an_exported_folder_has_the_decoder_that_was_certified(facts: Facts, run: Attempt, keys: Path, tmp_path: Path) -> None:
    """Controls: the certified decoder; and a certificate from before decoders were named, which leaves it to the signed manifest."""
    folder, model = Path(shutil.copytree(run.folder / "onnx", tmp_path / "onnx")), facts.erased.model
    (folder / "decoder.onnx").write_bytes(b"decoder")
    decoder = Pointer(uri="onnx/decoder.onnx", sha256=sha256_file(folder / "decoder.onnx"))
    describe(folder, forgotten=model.forgotten, weights_sha256=model.weights.sha256, decoder=decoder)
    certificate = tmp_path / "certificate.dsse.json"
    presented = CertificateFiles(certificate=certificate, key=keys / PUBLIC, onnx=folder)
    for named in (decoder, None):
        exported = changed(facts.exported, decoder=named)
        certificate.write_bytes(sign(statement_of(replace(facts, exported=exported, **NOT_REGISTERED), AT), IN_TOTO, key_in(keys)))
        assert "decoder" in verify(presented).checks_passed, "control"
    exported = changed(facts.exported, decoder=changed(decoder, sha256="d" * 64))
    certificate.write_bytes(sign(statement_of(replace(facts, exported=exported, **NOT_REGISTERED), AT), IN_TOTO, key_in(keys)))
    with pytest.raises(IntegrityError, match="is not of the certified model"):
        verify(presented)


def test_the_same_records_give_the_same_statement_and_it_reads_back(facts: Facts, run: Attempt) -> None:
    final = statement_of(purged(facts, run), AT)
    assert final == statement_of(purged(facts, run), AT)
    assert Statement.parse_json(final.canonical(), "it") == final
    assert b'"_type":"https://in-toto.io/Statement/v1"' in final.canonical()


def test_it_is_the_statement_that_in_toto_reads(facts: Facts) -> None:
    """By in-toto's own library, which does not know ours."""
    from google.protobuf import json_format
    from in_toto_attestation.v1 import statement_pb2

    read = json_format.Parse(statement_of(facts, AT).canonical(), statement_pb2.Statement())
    assert read.type == "https://in-toto.io/Statement/v1"
    assert read.subject[0].name == "weights folder"
    assert read.predicate["phase"] == "provisional"


def test_nothing_of_the_forget_set_is_in_it_but_counts_and_a_commitment(facts: Facts, run: Attempt) -> None:
    text = statement_of(purged(facts, run), AT).canonical().decode()
    known = facts.forget_set
    for private in (known.version, known.remote, known.manifest_sha256, known.forget_indices_hmac, known.retain_indices_hmac, known.digest()):
        assert private not in text
    assert facts.commitment.hmac_sha256 in text, "control"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"complete": False}, "is not complete .store 'dvc cache'"),
        ({"lines": ()}, "lists no store"),
        ({"made_from": {}}, "is of another erasure"),
        ({"made_from": {"erased": "0" * 64}}, "is of another erasure"),
        ({"made_from": {"something": "0" * 64}}, "is of another erasure"),
        ({"forget_set_version": "0" * 32 + ".dir"}, "is of another erasure"),
        ({"requests": ("r-0000000000000009",)}, "name different requests"),
        ({"requests": ()}, "name different requests"),
        ({"minimum_epoch": 2}, "is revoked"),
        ({"revoked": (), "minimum_epoch": 0}, "does not revoke the model from before"),
    ],
)
def test_a_purge_that_does_not_fit_makes_no_final_certificate(facts: Facts, run: Attempt, changes: dict[str, Any], sentence: str) -> None:
    if changes.pop("complete", True) is False:
        changes["unfinished"] = UNFINISHED
    with pytest.raises(BadInput, match=sentence) as refused:
        statement_of(purged(facts, run, **changes), AT)
    assert "\n" not in str(refused.value)


def test_the_model_itself_is_not_among_the_revoked(facts: Facts, run: Attempt) -> None:
    mine = facts.erased.model.weights.sha256
    with pytest.raises(BadInput, match="is revoked"):
        statement_of(purged(facts, run, revoked=(facts.base.model.weights.sha256, mine)), AT)


def test_what_was_not_promoted_or_is_on_hold_is_not_final(facts: Facts, run: Attempt) -> None:
    with pytest.raises(BadInput, match="purged but not promoted"):
        statement_of(replace(purged(facts, run), promotion=None), AT)
    held = (request(1, held=True), request(2))
    with pytest.raises(BadInput, match="under a legal hold"):
        statement_of(replace(purged(facts, run), requests=held), AT)
    assert statement_of(replace(facts, requests=held), AT).predicate.phase == "provisional", "control: a hold does not stop a provisional one"


def test_a_request_for_something_else_is_refused(facts: Facts) -> None:
    other = request(3, erasure={"dataset": "digits", "scope": "class", "label": "4"})
    with pytest.raises(BadInput, match="is for another class"):
        statement_of(replace(facts, requests=(other,)), AT)


@pytest.mark.parametrize("verdict", [Verdict.FAIL, Verdict.INCONCLUSIVE])
@pytest.mark.parametrize("which", ["verdict", "exported"])
def test_what_did_not_pass_is_not_certified(facts: Facts, which: str, verdict: Verdict) -> None:
    record = changed(getattr(facts, which), verdict=verdict)
    with pytest.raises(BadInput, match="only PASS is certified"):
        statement_of(replace(facts, **{which: record}), AT)


@pytest.mark.parametrize("which", ["plan", "base", "forget_set", "erased", "verdict", "exported", "registered"])
def test_a_record_that_the_others_were_not_made_from_is_refused(facts: Facts, which: str) -> None:
    """Every one of the chain is exchanged for one that says the same and was made from something else."""
    record = getattr(facts, which)
    exchanged = changed(record, made_from=record.made_from | {"x": "1" * 64})
    with pytest.raises(IntegrityError, match="does not belong to the other records"):
        statement_of(replace(facts, **{which: exchanged}), AT)


def test_a_graph_of_other_weights_is_refused(facts: Facts) -> None:
    exported = changed(facts.exported, weights_sha256="0" * 64)
    alone = replace(facts, exported=exported, registered=None, rolled_out=None, promotion=None)
    with pytest.raises(IntegrityError, match="are not those that were measured"):
        statement_of(alone, AT)
    assert statement_of(replace(alone, exported=facts.exported), AT).predicate.serving.outcome == "none", "control"


def check(id: str, value: float | None = 0.1, verdict: Verdict = Verdict.PASS) -> Check:
    return Check(
        id=id, title="", statistic="", unit="share", value=value, bound=value, bound_kind="upper", threshold=0.2, n=5 if value else 0, verdict=verdict
    )


def table(*checks: Check) -> dict[str, tuple[bool, tuple[str, ...]]]:
    return {row.threat: (row.executed, row.checks) for row in coverage(checks)}


def test_an_attack_is_executed_only_if_its_check_was_made() -> None:
    made = table(check("F9.loss"), check("F9.sima"), check("F7"), check("F5"), check("F3.partial"), check("F1"))
    assert made == {
        "membership inference": (True, ("F9.loss", "F9.sima")),
        "attribute inference": (False, ()),
        "exfiltration": (False, ()),
        "regurgitation": (True, ("F7",)),
        "inversion": (True, ("F5",)),
        "reconstruction": (True, ("F3.partial",)),
    }
    assert not any(executed for executed, _ in table(check("F1"), check("F3"), check("F50"), check("F9x"), check("R1.class")).values())
    assert not any(executed for executed, _ in table(check("F5", value=None, verdict=Verdict.INCONCLUSIVE)).values())


def test_every_row_says_why_or_how(facts: Facts) -> None:
    rows = statement_of(facts, AT).predicate.coverage
    assert [row.threat for row in rows] == [known.threat for known in THREATS]
    assert all(row.note for row in rows)
    (asked,) = (row for row in coverage([check("F7", value=None, verdict=Verdict.INCONCLUSIVE)]) if row.threat == "regurgitation")
    assert "F7, but it was not measured" in asked.note


def test_what_was_not_done_is_among_the_limitations(facts: Facts, run: Attempt) -> None:
    provisional = " ".join(statement_of(facts, AT).predicate.limitations)
    for said in ("were not yet purged", "names no request", "Not carried out: membership inference", "No test can show"):
        assert said in provisional
    final = " ".join(statement_of(purged(facts, run), AT).predicate.limitations)
    assert "were not yet purged" not in final
    assert "kept some items: see 1 of its 4 lines" in final
    rolled_back = replace(facts, rolled_out=changed(facts.rolled_out, outcome="rolled back"), promotion=None)
    assert "was rolled back" in " ".join(statement_of(rolled_back, AT).predicate.limitations)
    doubtful = changed(facts.verdict, reported=(check("F9.loss", verdict=Verdict.INCONCLUSIVE),))
    alone = replace(facts, verdict=doubtful, registered=None, rolled_out=None, promotion=None)
    alone = replace(alone, exported=changed(facts.exported, made_from={"erased": facts.erased.digest(), "verdict": doubtful.digest()}))
    assert "F9.loss (INCONCLUSIVE)" in " ".join(statement_of(alone, AT).predicate.limitations)
