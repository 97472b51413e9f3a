"""The lie: 'you lack a Role', of an answer 403 in which a webhook, a policy or a quota refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from kubernetes.client import ApiException

from erasediff.cluster.answers import ConnectionLost, Forbidden, ObjectConflict, ObjectRejected, sentences
from erasediff.errors import EraseDiffError

RECORDED = Path(__file__).parent / "kubeflow/recorded"
# A webhook's and a Role's answers were recorded. A quota and a limit are also asked of a real API server, in tests/cluster/test_trainjob.py.
# The words of Pod Security and of a policy were not recorded: they follow Kubernetes' documentation.
QUOTA = 'pods "x" is forbidden: exceeded quota: small, requested: requests.cpu=4, used: requests.cpu=1, limited: requests.cpu=2'
POD_SECURITY = 'pods "x" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot != true (pod must not set it)'
POLICY = "trainjobs.trainer.kubeflow.org \"x\" is forbidden: ValidatingAdmissionPolicy 'no-gpus' with binding 'all' denied request: no GPUs here"
LIMIT = 'pods "x" is forbidden: maximum cpu usage per Container is 1, but limit is 4'


def status(code: int, message: str) -> str:
    return json.dumps({"kind": "Status", "status": "Failure", "code": code, "message": message})


def told(code: int, body: str) -> EraseDiffError:
    error = ApiException(status=code, reason="Forbidden")
    error.body = body
    with pytest.raises(EraseDiffError) as raised, sentences("create", "TrainJob ns/x"):
        raise error
    sentence = str(raised.value)
    assert "\n" not in sentence
    return raised.value


@pytest.mark.parametrize(
    ("code", "body", "kind", "sentence"),
    [
        (
            403,
            (RECORDED / "refused-by-webhook.json").read_text(),
            ObjectRejected,
            "the admission webhook validator.trainjob.trainer.kubeflow.org refuses to create TrainJob ns/x (403: spec.RuntimeRef: ",
        ),
        (
            403,
            (RECORDED / "forbidden-by-role.json").read_text(),
            Forbidden,
            'no Role allows this account to create TrainJob ns/x (403: User "system:serviceaccount:kubeflow:',
        ),
        (
            403,
            status(403, QUOTA),
            ObjectRejected,
            "the ResourceQuota small leaves no room to create TrainJob ns/x (403: requested: ",
        ),
        (403, status(403, POD_SECURITY), ObjectRejected, 'a policy of the cluster refuses to create TrainJob ns/x (403: violates PodSecurity "'),
        (
            403,
            status(403, POLICY),
            ObjectRejected,
            "a policy of the cluster refuses to create TrainJob ns/x (403: ValidatingAdmissionPolicy ",
        ),
        (403, status(403, LIMIT), ObjectRejected, "the cluster refuses to create TrainJob ns/x (403: pods"),
        (409, status(409, "the object has been modified"), ObjectConflict, "(409: the object has been modified)"),
        (
            422,
            status(422, "spec.trainer: Required value"),
            ObjectRejected,
            "refuses to create TrainJob ns/x (422: spec.trainer: Required value)",
        ),
        (429, status(429, "too many requests, please try again later"), ConnectionLost, "answers 429 (too many requests, please try again later)"),
    ],
    ids=["webhook", "Role", "quota", "Pod Security", "policy", "limit", "conflict", "schema", "too many"],
)
def test_who_refused_is_said_with_the_servers_own_message(code: int, body: str, kind: type[EraseDiffError], sentence: str) -> None:
    error = told(code, body)
    assert type(error) is kind
    assert sentence in str(error)


def test_the_recorded_webhook_says_what_is_missing() -> None:
    assert "must be created before the TrainJob is created" in str(told(403, (RECORDED / "refused-by-webhook.json").read_text()))
