"""The lie: 'it is rolled out', of the generation before, or of a pod that will never be ready."""

from __future__ import annotations

import pytest

from erasediff.cluster.pods import restarts, trouble_of
from erasediff.rollout.deployment import gave_up, is_rolled_out, refused_pods

DONE = {"observedGeneration": 2, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2}


def deployment(**status: object) -> dict:
    return {"metadata": {"generation": 2}, "spec": {"replicas": 2}, "status": DONE | status}


def test_control_it_is_rolled_out() -> None:
    assert is_rolled_out(deployment())


@pytest.mark.parametrize(
    "status",
    [
        {"observedGeneration": 1},
        {"updatedReplicas": 1},
        {"availableReplicas": 1},
        {"replicas": 3},
        {"updatedReplicas": 0, "replicas": 0, "availableReplicas": 0},
    ],
    ids=["ready of the generation before", "one is old", "one is not available", "an old one is left", "none yet"],
)
def test_it_is_not_rolled_out(status: dict) -> None:
    assert not is_rolled_out(deployment(**status))
    assert not is_rolled_out({"metadata": {"generation": 1}, "spec": {"replicas": 1}})


def test_no_progress_counts_for_this_generation_only() -> None:
    conditions = [{"type": "Progressing", "reason": "ProgressDeadlineExceeded"}]
    assert gave_up(deployment(conditions=conditions))
    assert not gave_up(deployment(conditions=conditions, observedGeneration=1))
    assert not gave_up(deployment(conditions=[{"type": "Progressing", "reason": "ReplicaSetUpdated"}]))


def test_pods_that_are_not_let_in_are_told_until_they_are() -> None:
    message = 'pods "x" is forbidden: exceeded quota: small, requested: pods=1.'
    refused = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": message}
    assert refused_pods(deployment(conditions=[refused])) == f"the cluster refuses its pods ({message[:-1]})"
    assert refused_pods(deployment(conditions=[refused | {"status": "False"}])) is None
    assert refused_pods(deployment()) is None


def pod(container: dict, **status: object) -> dict:
    return {"metadata": {"name": "p"}, "status": {"containerStatuses": [container], **status}}


@pytest.mark.parametrize(
    ("found", "said", "hopeless"),
    [
        (
            pod(
                {
                    "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                    "lastState": {"terminated": {"exitCode": 2, "message": "x\nthe model is bad.\n"}},
                }
            ),
            "ended with exit code 2: the model is bad",
            True,
        ),
        (pod({"state": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}), "exit code 137: OOMKilled", False),
        (pod({"state": {"waiting": {"reason": "ErrImageNeverPull", "message": "no image"}}}), "waits: ErrImageNeverPull, no image", True),
        (pod({"state": {"waiting": {"reason": "ImagePullBackOff"}}}), "waits: ImagePullBackOff", False),
        (pod({"state": {"running": {}}, "ready": False, "started": True}), "runs and is not ready", False),
        (
            {"metadata": {"name": "p"}, "status": {"conditions": [{"reason": "Unschedulable", "message": "0/1 nodes"}]}},
            "cannot be scheduled: 0/1 nodes",
            False,
        ),
    ],
)
def test_what_a_pod_says_is_quoted(found: dict, said: str, hopeless: bool) -> None:
    trouble = trouble_of([found])
    assert trouble is not None
    assert said in trouble.sentence
    assert "\n" not in trouble.sentence
    assert trouble.hopeless is hopeless


def test_control_a_pod_that_is_starting_or_ready_is_no_trouble() -> None:
    starting, ready = pod({"state": {"waiting": {"reason": "ContainerCreating"}}}), pod({"state": {"running": {}}, "ready": True, "started": True})
    assert trouble_of([starting, ready, {"metadata": {"name": "p"}}]) is None
    assert restarts([starting, ready]) == 0
    assert restarts([pod({"restartCount": 1}), pod({"restartCount": 3})]) == 3
