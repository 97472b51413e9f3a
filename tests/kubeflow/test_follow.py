"""The lie: 'it went well', of a run that was followed from the shell and was green, although nothing was promoted."""

import json
from datetime import datetime

import pytest

from erasediff import follow as following
from erasediff.cli import main
from erasediff.errors import BadInput, ExitCode
from erasediff.follow import follow, news, states_of, verdict
from erasediff.records.submission import SeenRun, SeenTask
from tests.kubeflow.fake_kfp import FakeKfpApi
from tests.kubeflow.fake_trainer import RECORDED


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

    tasks = tuple(SeenTask(name=t["display_name"], state=t.get("state"), seconds=seconds(t)) for t in run["run_details"]["task_details"])
    return SeenRun(run_id=run["run_id"], state=run["state"], tasks=tasks)


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


def without(run: SeenRun, *names: str) -> SeenRun:
    return run.model_copy(update={"tasks": tuple(task for task in run.tasks if task.name not in names)})


def test_a_green_run_whose_gate_did_not_say_pass_is_no_success():
    """Not recorded whole: such a run was seen to be SUCCEEDED, with no step after its gate."""
    green, code = seen(SUCCEEDED), ExitCode.GATE_FAIL
    after_gate = ("export-onnx", "register", "roll-out", "promote")
    assert verdict(without(green, *after_gate))[0] == code
    assert "for gate did not say PASS" in verdict(without(green, *after_gate))[1]
    assert "for export-onnx did not say PASS" in verdict(without(green, *after_gate[1:]))[1]
    assert verdict(without(green, *states_of(green)))[0] == ExitCode.UNEXPECTED, "nothing is told of its steps"
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
    assert main(["submit", "--host", kfp.host, "--label-number", "3", "--wait"]) == ExitCode.UNEXPECTED
    lines = capsys.readouterr().out.splitlines()
    assert "Erase (erase) begins." in lines
    assert "Erase (erase) has failed after 91 s." in lines
    assert lines[-1].startswith(f"run {kfp.runs[0]['run_id']} failed in erase: ")
    assert kfp.terminated == []


@pytest.mark.parametrize(("option", "ended"), [([], False), (["--terminate-on-interrupt"], True)], ids=["left", "terminated"])
def test_an_interrupt_leaves_the_run_or_terminates_it_if_asked(kfp, capsys, monkeypatch, option, ended):
    def interrupted(*_: object) -> SeenRun:
        raise KeyboardInterrupt

    monkeypatch.setattr("erasediff.submit.look", interrupted)
    assert main(["submit", "--host", kfp.host, "--label-number", "3", "--wait", *option]) == ExitCode.INTERRUPTED
    (run,) = kfp.runs
    assert kfp.terminated == ([run["run_id"]] if ended else [])
    last = capsys.readouterr().out.splitlines()[-1]
    assert ("is being terminated" if ended else "goes on: `erasediff runs terminate") in last


def test_a_run_is_terminated_by_its_identifier_and_one_that_is_not_there_is_refused(kfp, capsys):
    assert main(["submit", "--host", kfp.host, "--label-number", "3"]) == 0
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
    assert main([*arguments, "--host", kfp.host, "--label-number", "3"]) == 2
    assert sentence in capsys.readouterr().err
    assert kfp.requests == []
