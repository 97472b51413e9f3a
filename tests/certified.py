"""A run as far as its promotion, with real weights, a real graph, and the checks of a real small run (tests/evidence/quick)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import torch

from erasediff.attempts.attempt import Attempt
from erasediff.attempts.workdir import Workdir
from erasediff.data.commitment import request_key
from erasediff.files import sha256_bytes, sha256_file
from erasediff.models.families.unet import ClassConditionalUNet
from erasediff.models.folder import save_model
from erasediff.models.process import build_scheduler, squared_cosine
from erasediff.records.base import Pointer
from erasediff.records.certificate import RequestsRecord
from erasediff.records.config import RunConfig, SamplerConfig
from erasediff.records.core import (
    BaseRecord,
    ErasedRecord,
    ErasureRequest,
    ExportedRecord,
    ForgetSetRecord,
    PlanRecord,
    PromotionRecord,
    RegisteredRecord,
    RollOutRecord,
    VerdictRecord,
)
from erasediff.records.policy import load_policy
from erasediff.records.purging import PurgeLine, PurgeRecord, Unfinished
from erasediff.records.requests import Approval, Clocks, Regime, RequestFacts, State
from tests.digits import DIGITS
from tests.exported import SOLVER, describe, export_random

ROOT = Path(__file__).parent.parent
QUICK = ROOT / "tests/evidence/quick"
REQUEST = ErasureRequest(dataset="digits", label="0")
NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
HMAC_KEY = b"k" * 32


def promoted_run(root: Path, unet: Callable[..., torch.nn.Module]) -> Attempt:
    """Everything that the steps up to ``promote`` leave behind."""
    workdir, config, policy = Workdir.open(root), RunConfig(), load_policy(ROOT / "policies/class-conditional.yaml")
    plan = PlanRecord(
        run="quick",
        attempt=1,
        request=REQUEST,
        position=0,
        request_id="9" * 64,
        config_digest=config.digest(),
        policy_digest=policy.digest(),
        seed_commitment=sha256_bytes(HMAC_KEY),
        mlflow_run_id="x",
    )
    request_key(workdir.request_key(REQUEST))
    run, scheduler = workdir.open_attempt(plan, config, policy, HMAC_KEY), build_scheduler(SamplerConfig(), squared_cosine(1000))
    before = save_model(ClassConditionalUNet.of(unet(0), scheduler), workdir.models, "digits", DIGITS, ())
    after = save_model(ClassConditionalUNet.of(unet(1), scheduler), workdir.models, "digits", DIGITS, ("0",)).model_copy(update={"epoch": 1})
    base = BaseRecord(made_from={"plan": plan.digest()}, name="digits", version="1", model=before)
    forget_set = ForgetSetRecord(
        made_from={"base": base.digest(), "plan": plan.digest()},
        label=0,
        version="b9eb8bbe309b8f0831949a124df74376.dir",
        remote="s3://forget/quick",
        manifest_sha256="1" * 64,
        count=178,
        retain_count=1619,
        gone_count=0,
        forget_indices_hmac="2" * 64,
        retain_indices_hmac="3" * 64,
    )
    erased = ErasedRecord(
        made_from={"base": base.digest(), "forget_set": forget_set.digest(), "config": config.digest()},
        model=after,
        steps=60,
        forward_passes=300,
        backward_passes=120,
        ema_base_share=0.0,
        curves=Pointer(uri="curves.npz", sha256="4" * 64),
    )
    judged = {"policy": policy.digest(), "base": base.digest(), "measurements": "5" * 64}
    verdict = VerdictRecord.read(QUICK / "verdict.json").model_copy(update={"made_from": judged, "policy_digest": policy.digest()})
    export_random(run.folder / "onnx", unet, seed=1, epoch=1, forgotten=(0,))
    describe(run.folder / "onnx", forgotten=after.forgotten, weights_sha256=after.weights.sha256)
    onnx, solvers = (Pointer(uri=f"onnx/{name}", sha256=sha256_file(run.folder / "onnx" / name)) for name in ("model.onnx", "solvers.npz"))
    exported = ExportedRecord.read(QUICK / "exported.json").model_copy(
        update={
            "made_from": {"erased": erased.digest(), "verdict": verdict.digest()},
            "onnx": onnx,
            "solvers": solvers,
            "solver": SOLVER,
            "weights_sha256": after.weights.sha256,
        }
    )
    registered = RegisteredRecord(
        made_from={"exported": exported.digest(), "verdict": verdict.digest()},
        name="digits",
        version="2",
        weights_sha256=after.weights.sha256,
        onnx_sha256=onnx.sha256,
        source="somewhere",
    )
    rolled_out = RollOutRecord(
        made_from={"registered": registered.digest()}, backend="deployment", uri="s3://m/a", onnx_sha256=onnx.sha256, revision="7", outcome="promoted"
    )
    promotion = PromotionRecord(
        made_from={"registered": registered.digest(), "base": base.digest()},
        name="digits",
        version="2",
        previous_version="1",
        verdict_digest=verdict.digest(),
        forget_set_version=forget_set.version,
        when="2026-03-02T12:00:00+00:00",
    )
    for record in (base, forget_set, erased, verdict, exported, registered, rolled_out, promotion):
        record.write(run.path(type(record)))
    return run


def request(number: int, **changes: object) -> RequestFacts:
    """What the ledger says of a request."""
    fields: dict[str, object] = {
        "id": f"r-{number:016x}",
        "regime": Regime.GDPR,
        "scope": "class",
        "erasure": REQUEST,
        "clocks": Clocks(received=NOON, confirm_by=None, due=NOON + timedelta(days=30)),
        "state": State.PURGED,
        "approvals": (Approval(by="role:privacy", at=NOON, key_id="6" * 64, signature="c2lnbmF0dXJl"),),
        "ledger_head": "7" * 64,
    }
    return RequestFacts.model_validate(fields | changes)


def file_requests(run: Attempt, *requests: RequestFacts) -> RequestsRecord:
    """Put what the ledger says beside a run."""
    record = RequestsRecord(requests=requests)
    record.write(run.path(RequestsRecord))
    return record


def purge_of(run: Attempt, *requests: RequestFacts, **changes: object) -> PurgeRecord:
    """A complete purge of a run, written beside it."""
    base, erased = run.need(BaseRecord), run.need(ErasedRecord)
    lines = (
        PurgeLine(store="dvc remote", what="object versions", action="deleted", count=178, verified="listed again, none found", at=NOON),
        PurgeLine(store="models", what="model folders from before the erasure", action="revoked", count=1, verified="digest revoked", at=NOON),
        PurgeLine(store="mlflow artifacts", what="metrics", action="kept", count=4, verified="counts alone, nothing of an image", at=NOON),
        PurgeLine(store="keys", what="key of the commitment", action="deleted", count=1, verified="the file is gone", at=NOON),
    )
    fields: dict[str, object] = {
        "made_from": {"erased": erased.digest(), "promotion": run.need(PromotionRecord).digest()},
        "requests": tuple(one.id for one in requests),
        "forget_set_version": run.need(ForgetSetRecord).version,
        "revoked": (base.model.weights.sha256,),
        "minimum_epoch": 1,
        "lines": lines,
    }
    record = PurgeRecord.model_validate(fields | changes)
    record.write(run.path(PurgeRecord))
    return record


UNFINISHED = (Unfinished(store="dvc cache", reason="the disk did not answer"),)
