"""The lie: 'attacked', of a run whose attacks were left out somewhere on the way from the command to the report."""

import json
from pathlib import Path

import pytest

QUICK = Path(__file__).parent / "quick"
DECISIVE, REPORTED = {"F4", "F5", "F7", "F3.partial"}, {"F6", "F9.loss", "F9.sima", "F9.secmi", "F9.pia"}


@pytest.fixture(scope="module")
def attacked(tmp_path_factory, erasediff):
    workdir = tmp_path_factory.mktemp("tier2") / "work"
    documents = ("--config", QUICK / "config.yaml", "--policy", QUICK / "policy.yaml")
    done = erasediff("run", "--workdir", workdir, *documents, "--forget-label", 0, "--tier", 2)
    return workdir, done


def test_tier_2_attacks_three_models_decides_and_reports(attacked):
    workdir, done = attacked
    assert done.returncode == 0, done.stderr
    (run,) = (workdir / "runs").glob("*/")
    verdict, measured, exported = (json.loads((run / f"{name}.json").read_text()) for name in ("verdict", "measurements", "exported"))
    assert {check["id"] for check in verdict["checks"]} >= DECISIVE
    assert {check["id"] for check in verdict["reported"]} == REPORTED
    found = measured["attacks"]
    for attack in ("finetuned", "inverted", "partial"):
        assert all(found[attack][model]["n"] == 40 for model in ("base", "erased", "retrained"))
    assert found["finetuned"]["base"]["detections"] > found["finetuned"]["retrained"]["detections"], "the base knows the class and the other does not"
    assert exported["forget_int8"]["n"] == 200
    assert {check["id"] for check in exported["checks"]} == {"F8", "F8.parity", "F8.int8"}
    assert not list(run.rglob("*int8*")), "the rounded graph was for asking alone"


def test_the_report_and_the_tracking_show_them(attacked):
    workdir, _ = attacked
    page = (workdir / "report.html").read_text()
    assert all(words in page for words in ("Attackers", "Reported only", "Relearning", "without the class"))
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{workdir}/mlflow.db")
    runs = client.search_runs([e.experiment_id for e in client.search_experiments()])
    metrics = set().union(*(run.data.metrics for run in runs))
    assert {"gate.f1.upper95", "gate.f4.upper95", "gate.f9.pia.upper95", "gate.f6.lower95", "gate.f8.int8.upper95", "gate.f8.int8.passed"} <= metrics


def test_the_tier_was_fixed_in_the_plan_before_anything_was_erased(attacked, erasediff):
    """A PASS on tier 2 is no PASS that tier 1 could have given: the policies have different digests."""
    workdir, _ = attacked
    (run,) = (workdir / "runs").glob("*/")
    assert json.loads((run / "policy.json").read_text())["tier"] == 2
    refused = erasediff("run", "--workdir", workdir, "--forget-label", 1, "--tier", 3)
    assert refused.returncode == 2
