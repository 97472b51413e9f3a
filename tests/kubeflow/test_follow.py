"""The lie: 'it went well', of a run that was followed from the shell and was green, although nothing was promoted."""

import json
from datetime import datetime

import pytest

from erasediff import follow as following
from erasediff.cli import main
from erasediff.errors import BadInput, ExitCode
from erasediff.follow import follow, news, pod_of, states_of, verdict, why
from erasediff.logs import LastWords
from erasediff.records.submission import SeenRun, SeenTask
from tests.kubeflow.fake_kfp import FakeKfpApi
from tests.kubeflow.fake_trainer import RECORDED
from tests.kubeflow.server import Refused


def recorded(name: str) -> dict:
    return json.loads((RECORDED / name).read_text())


FAILED, SUCCEEDED = recorded("run-failed.json"), recorded("run-succeeded.json")


def state_at(moment: datetime, thing: dict) -> str | None:
    """The state that the history of a run or a task gives it at a moment."""
    past = [entry.get("state") for entry in thing.get("state_history", ()) if datetime.fromisoformat(entry["update_time"]) <= moment]
    return past[-1] if past else None


def at(moment: datetime, run: dict) -> dict:
    """A recorded run as it was at a moment, by the histories of its states."""
    tasks = [
        {"display_name": t["display_name"], "start_time": t["start_time"]} | {"state": s}
        for t in run["run_details"]["task_details"]
        if (s := state_at(moment, t))
    ]
    return run | {"state": state_at(moment, run), "run_details": {"task_details": tasks}}


def seen(run: dict) -> SeenRun:
    """What the library gets of it."""

    def seconds(task: dict) -> float | None:
        if "end_time" not in task:
            return None
        return (datetime.fromisoformat(task["end_time"]) - datetime.fromisoformat(task["start_time"])).total_seconds()

    def task(told: dict) -> SeenTask:
        children = tuple(child["pod_name"] for child in told.get("child_tasks", ()))
        return SeenTask(name=told["display_name"], state=told.get("state"), seconds=seconds(told), started=told["start_time"], children=children)

    return SeenRun(run_id=run["run_id"], state=run["state"], tasks=tuple(map(task, run["run_details"]["task_details"])))


def followed(*looks: SeenRun) -> list[str]:
    """The sentences of a run that is looked at so often."""
    lines: list[str] = []
    follow(iter(looks).__next__, lines.append, lambda _: None)
    return lines


def every_moment(run: dict) -> list[datetime]:
    entries = [entry for thing in (run, *run["run_details"]["task_details"]) for entry in thing.get("state_history", ())]
    return sorted({datetime.fromisoformat(entry["update_time"]) for entry in entries})


def test_each_step_is_told_once_when_it_begins_and_once_when_it_ends_and_nothing_of_kubeflows_own_tasks():
    lines = followed(*(seen(at(moment, FAILED)) for moment in every_moment(FAILED)), seen(FAILED))
    names = ("check-prerequisites", "train-base", "version-forget-set", "erase", "record-outcome")
    for name in names:
        assert len([line for line in lines if f"({name}) begins." in line]) == 1
        assert len([line for line in lines if f"({name}) has " in line]) == 1
    assert len(lines) == 2 * len(names)
    assert any("(erase) has failed" in line for line in lines)
    assert "Train or find the base (train-base) has ended well after 30 s." in followed(seen(FAILED)), "seen at its end alone"


def test_the_exit_code_is_what_the_api_can_tell():
    assert verdict(seen(SUCCEEDED)) == (ExitCode.OK, "ended well: the model is promoted")
    code, sentence = verdict(seen(FAILED))
    assert code == ExitCode.UNEXPECTED
    assert "failed in erase:" in sentence


POD = "erasure-rt2v9-821611825"
"""Argo's name of the pod in which ``erase`` failed: it hashes the name of the node, which is made of the names on the way to it."""
WORDS = LastWords("erase", 2, "the forget set of class 1 is not in the remote: run `erasediff version-forget-set` again.")
LOG = f"""\
15:06:09 Erase, class 1: begins, attempt 977d005e1aeb6608-1
15:06:10 Erase, class 1: failed after 0.4 s
{WORDS}
I1127 15:06:10.9 1 launcher_v2.go:185] publish success.
F1127 15:06:10.9 1 main.go:49] failed to execute component: exit status 2
"""


def test_the_pod_of_a_failed_step_is_found_among_kubeflows_tasks():
    """Where two steps failed too: each executor begins with its step."""
    assert pod_of(seen(FAILED), "erase") == POD
    assert pod_of(seen(FAILED), "train-base") is None, "it did not fail"
    also = [
        t | {"state": "FAILED"} if t["display_name"] == "record-outcome" or t["start_time"] == "2026-11-27T15:07:43Z" else t
        for t in FAILED["run_details"]["task_details"]
    ]
    both = seen(FAILED | {"run_details": {"task_details": also}})
    assert (pod_of(both, "erase"), pod_of(both, "record-outcome")) == (POD, "erasure-rt2v9-2366940638")
    assert pod_of(without(seen(FAILED), "executor"), "erase") is None


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_failed_step_is_told_with_its_last_sentence_and_ends_with_its_own_exit_code(form):
    line = str(WORDS) if form == "text" else json.dumps({"level": "ERROR", "message": str(WORDS)})
    words = why(seen(FAILED), {POD: LOG.replace(str(WORDS), line)}.__getitem__)
    assert words == WORDS
    assert verdict(seen(FAILED), words) == (ExitCode.BAD_INPUT, f"failed in erase: {WORDS.sentence.rstrip('.')}")


@pytest.mark.parametrize("log", ["", "15:06:09 Erase, class 1: begins", LOG.replace("erasediff erase", "erasediff gate")])
def test_a_log_that_does_not_say_why_changes_nothing(log):
    assert why(seen(FAILED), lambda _: log) is None


def test_a_server_that_does_not_answer_for_the_log_changes_nothing():
    def away(_: str) -> str:
        raise BadInput("away")

    assert why(seen(FAILED), away) is None
    assert why(seen(SUCCEEDED), away) is None, "nothing is asked of a run that ended well"


@pytest.mark.parametrize(("step", "code"), [("gate", ExitCode.GATE_FAIL), ("export-onnx", ExitCode.GATE_FAIL), ("evaluate", ExitCode.UNEXPECTED)])
def test_a_run_that_failed_in_a_decision_is_a_fail_where_the_step_does_not_say_more(step, code):
    """Not recorded: FAIL and INCONCLUSIVE end a decision with 10 and 11, and Kubeflow's API tells neither."""
    failed = SeenRun(run_id="r", state="FAILED", tasks=(SeenTask(name=step, state="FAILED", seconds=3.0),))
    assert verdict(failed)[0] == code
    assert verdict(failed, LastWords(step, 11, "INCONCLUSIVE."))[0] == ExitCode.GATE_INCONCLUSIVE
    assert verdict(failed, LastWords(step, 77, "of another version."))[0] == ExitCode.UNEXPECTED, "no exit code of ours"


def without(run: SeenRun, *names: str) -> SeenRun:
    return run.model_copy(update={"tasks": tuple(task for task in run.tasks if task.name not in names)})


def test_a_green_run_without_a_promotion_is_no_success():
    green = seen(SUCCEEDED)
    for missing in (("promote",), tuple(states_of(green))):
        assert verdict(without(green, *missing))[0] == ExitCode.UNEXPECTED
    idle = without(green, *states_of(green)).model_copy(update={"tasks": (SeenTask(name="regate", state="SUCCEEDED", seconds=3.0),)})
    assert verdict(idle)[0] == ExitCode.OK
    assert verdict(green.model_copy(update={"state": "CANCELED"}))[0] == ExitCode.INTERRUPTED


def test_a_server_that_is_away_for_a_moment_is_waited_for_and_one_that_stays_away_is_told():
    answers = iter([BadInput("away"), BadInput("away"), seen(SUCCEEDED)])

    def look() -> SeenRun:
        answer = next(answers)
        if isinstance(answer, BadInput):
            raise answer
        return answer

    assert follow(look, lambda _: None, lambda _: None).state == "SUCCEEDED"

    def away() -> SeenRun:
        raise BadInput("away for good")

    with pytest.raises(BadInput, match="away for good"):
        follow(away, lambda _: None, lambda _: None)


def test_a_task_that_is_tried_again_is_told_again():
    running = SeenRun(run_id="r", state="RUNNING", tasks=(SeenTask(name="erase", state="RUNNING", seconds=None),))
    assert news({"erase": "FAILED"}, running) == ["Erase (erase) begins."]
    assert news({"erase": "RUNNING"}, running) == []


# --- from the command line


@pytest.fixture
def kfp(monkeypatch):
    monkeypatch.setattr(following, "_POLL_SECONDS", 0.01)
    with FakeKfpApi() as fake:
        yield fake


def test_submit_waits_to_the_end_and_ends_with_the_runs_exit_code(kfp, capsys):
    kfp.looks = [at(datetime.fromisoformat("2026-11-27T15:06:30+00:00"), FAILED), FAILED]
    assert main(["submit", "--host", kfp.host, "--forget-label", "3", "--wait"]) == ExitCode.UNEXPECTED
    lines = capsys.readouterr().out.splitlines()
    assert "Erase (erase) begins." in lines
    assert "Erase (erase) has failed after 91 s." in lines
    assert lines[-1] == f"run {kfp.runs[0]['run_id']} failed in erase: the last sentence of its log says why, and so does the report."
    assert kfp.terminated == []


@pytest.mark.parametrize("instead", [None, Refused(403, "not for this user"), b"<html>a page of its own</html>"], ids=["log", "refused", "page"])
def test_submit_ends_with_what_the_failed_step_said_where_kubeflow_hands_out_its_log(kfp, capsys, instead):
    """Control: a user who may not read it, and a web page before an API that does not know the operation."""
    kfp.looks, kfp.logs = [FAILED], {POD: LOG}
    if instead is not None:
        kfp.instead["read_artifact"] = instead
    code = main(["submit", "--host", kfp.host, "--forget-label", "3", "--wait"])
    last = capsys.readouterr().out.splitlines()[-1]
    assert kfp.log.count("read_artifact") == 1
    if instead is None:
        assert (code, last) == (ExitCode.BAD_INPUT, f"run {kfp.runs[0]['run_id']} failed in erase: {WORDS.sentence}")
    else:
        assert code == ExitCode.UNEXPECTED
        assert last.endswith("failed in erase: the last sentence of its log says why, and so does the report.")


@pytest.mark.parametrize(("option", "ended"), [([], False), (["--terminate-on-interrupt"], True)], ids=["left", "terminated"])
def test_an_interrupt_leaves_the_run_or_terminates_it_if_asked(kfp, capsys, monkeypatch, option, ended):
    def interrupted(*_: object) -> SeenRun:
        raise KeyboardInterrupt

    monkeypatch.setattr("erasediff.submit.look", interrupted)
    assert main(["submit", "--host", kfp.host, "--forget-label", "3", "--wait", *option]) == ExitCode.INTERRUPTED
    (run,) = kfp.runs
    assert kfp.terminated == ([run["run_id"]] if ended else [])
    last = capsys.readouterr().out.splitlines()[-1]
    assert ("is being terminated" if ended else "goes on: `erasediff runs terminate") in last


def test_a_run_is_terminated_by_its_identifier_and_one_that_is_not_there_is_refused(kfp, capsys):
    assert main(["submit", "--host", kfp.host, "--forget-label", "3"]) == 0
    identifier = kfp.runs[0]["run_id"]
    assert main(["runs", "terminate", "nobody", "--host", kfp.host]) == 2
    assert "answers 404" in capsys.readouterr().err
    assert kfp.terminated == []
    assert main(["runs", "terminate", identifier, "--host", kfp.host]) == 0
    assert kfp.terminated == [identifier]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["schedule", "--cron", "0 0 3 * * *", "--wait"], "a schedule has no run to wait for"),
        (["submit", "--terminate-on-interrupt"], "give --wait too"),
    ],
)
def test_nothing_is_waited_for_where_there_is_nothing(kfp, capsys, arguments, sentence):
    assert main([*arguments, "--host", kfp.host, "--forget-label", "3"]) == 2
    assert sentence in capsys.readouterr().err
    assert kfp.requests == []
