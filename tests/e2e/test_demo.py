"""The demo at its defaults, as a user starts it. `make test-demo` runs it; test_request.py has the same way with little training."""

import json

import pytest

from erasediff.records.core import Outcome
from erasediff.steps.table import work_steps
from tests.e2e.conftest import log_of

pytestmark = pytest.mark.demo
FORGET = "0"
NO_KEY = {"ERASEDIFF_SIGNING_KEY": ""}  # it makes its own


@pytest.fixture(scope="module")
def first(tmp_path_factory, services, erasediff_alone):
    """``erasediff demo`` on an empty workdir."""
    workdir = tmp_path_factory.mktemp("demo") / "work"
    return workdir, erasediff_alone("demo", "--workdir", workdir, "--forget-label", FORGET, environment=services.environment | NO_KEY)


def test_the_demo_erases_and_promotes(first):
    workdir, done = first
    assert done.returncode == 0, done.stdout + done.stderr + log_of(workdir)
    outcome = Outcome.read(workdir / "outcome.json")
    assert (outcome.verdict, outcome.error, outcome.attempt, outcome.forget.label, outcome.forget.n) == ("PASS", None, 1, FORGET, 1000)
    assert outcome.forget.upper <= 0.02
    assert outcome.retain.accuracy_erased > outcome.retain.accuracy_base - 0.03
    assert set(outcome.seconds) >= {row.name for row in work_steps()}


def test_its_certificate_verifies_with_the_key_that_it_made(first, erasediff):
    """Control: not with the purge of nothing."""
    workdir, _ = first
    outcome = Outcome.read(workdir / "outcome.json")
    folder = (workdir / outcome.certificate).parent
    held = ("--key", workdir / outcome.public_key, "--onnx", folder / "onnx", "--final")
    done = erasediff("verify", workdir / outcome.certificate, *held, "--purge", folder / "purge.json")
    assert done.returncode == 0, done.stderr
    assert erasediff("verify", workdir / outcome.certificate, *held, "--purge", folder / "plan.json").returncode == 2


def test_no_optimiser_state_and_no_share_of_the_base_leave_the_engine(first):
    from safetensors import safe_open

    workdir, _ = first
    (erased,) = (workdir / "runs").glob("*/erased.json")
    assert json.loads(erased.read_text())["ema_base_share"] < 1e-3
    with safe_open(next((workdir / "models").glob("*/unet/*.safetensors")), framework="pt") as weights:
        assert not [name for name in weights.keys() if "exp_avg" in name or "optimizer" in name]  # noqa: SIM118


def test_the_demo_again_does_nothing(first, services, erasediff):
    workdir, _ = first
    before = (workdir / "promotions.jsonl").read_bytes()
    again = erasediff("demo", "--workdir", workdir, "--forget-label", FORGET, environment=services.environment | NO_KEY)
    assert again.returncode == 0, again.stderr + log_of(workdir)
    assert before == (workdir / "promotions.jsonl").read_bytes()
