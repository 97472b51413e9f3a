"""A step of the compiled pipeline as a Job: what the compiled file says of its task, as Kubeflow's backend makes a pod of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import yaml
from kubernetes import client

from erasediff.cluster.api import POD, Cluster, Kind, Object
from erasediff.cluster.deadline import Deadline
from erasediff.cluster.pods import pod_labels
from pipelines.compile import COMPILED

JOB = Kind("batch/v1", "Job")
SECONDS = 300
ROOM = {"cpu": "1", "memory": "2Gi"}
"""For a step on this machine, in place of what the profile gives to training."""
RESTRICTED = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
"""What the namespace's standard asks of a container beside what a task can say of itself in a compiled pipeline."""


def pod_of(step: str, image: str, command: list[str]) -> Object:
    """The pod of a step under the profile `cpu`, with another command."""
    pipeline, platform = yaml.safe_load_all((COMPILED / "erasure-cpu.yaml").read_text())
    container = pipeline["deploymentSpec"]["executors"][f"exec-{step}"]["container"]
    asked = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"][f"exec-{step}"]
    context = asked["securityContext"]
    users = {"runAsUser": int(context["runAsUser"]), "runAsGroup": int(context["runAsGroup"]), "runAsNonRoot": context["runAsNonRoot"]}
    memory = {entry["volumeName"]: entry for entry in asked.get("emptyDirMounts", ())}
    claims = {entry["constant"]: entry for entry in asked["pvcMount"]}
    return {
        "serviceAccountName": "erasediff-pipeline",
        "restartPolicy": "Never",
        "enableServiceLinks": False,
        "securityContext": {**users, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [
            {
                "name": "main",
                "image": image,
                "imagePullPolicy": "IfNotPresent",
                "command": command,
                "env": [*container["env"], *_referred(asked, "configMap"), *_referred(asked, "secret")],
                "resources": {"requests": ROOM, "limits": ROOM},
                "securityContext": RESTRICTED,
                "volumeMounts": [
                    {"name": "tmp", "mountPath": "/tmp"},
                    *({"name": name, "mountPath": entry["mountPath"]} for name, entry in {**memory, **claims}.items()),
                ],
            }
        ],
        "volumes": [
            {"name": "tmp", "emptyDir": {}},
            *({"name": name, "emptyDir": {"medium": entry["medium"], "sizeLimit": entry["sizeLimit"]}} for name, entry in memory.items()),
            *({"name": name, "persistentVolumeClaim": {"claimName": name}} for name in claims),
        ],
    }


def _referred(asked: Object, kind: str) -> list[Object]:
    """The variables that come from ConfigMaps or Secrets."""
    return [
        {
            "name": pair["envVar"],
            "valueFrom": {f"{kind}KeyRef": {"name": source[f"{kind}Name"], "key": pair[f"{kind}Key"], "optional": source["optional"]}},
        }
        for source in asked.get(f"{kind}AsEnv", ())
        for pair in source["keyToEnv"]
    ]


@dataclass(frozen=True)
class Ended:
    """How a Job ended: its condition, the exit status of its one container, and all that this said."""

    condition: str
    code: int
    log: str


def run_job(cluster: Cluster, name: str, pod: Object) -> Ended:
    """Run a pod once, to its end."""
    template = {"metadata": {"labels": {**pod_labels("step"), "pipeline/runid": name}}, "spec": pod}
    cluster.create(JOB, {"metadata": {"name": name}, "spec": {"backoffLimit": 0, "activeDeadlineSeconds": SECONDS, "template": template}})
    condition = cluster.wait(JOB, name, _ending, Deadline(SECONDS + 30), f"Job {name} did not end")
    (found,) = cluster.list(POD, {"job-name": name})
    statuses = found["status"].get("containerStatuses") or [{}]
    ended: dict[str, Any] | None = statuses[0].get("state", {}).get("terminated")
    assert ended is not None, f"Job {name} {condition} and its pod never ran: {found['status']}"
    read = client.CoreV1Api(cluster._api).read_namespaced_pod_log
    log = read(found["metadata"]["name"], cluster.namespace, _preload_content=False).data.decode()  # as it is, were it JSON
    return Ended(condition, ended["exitCode"], log)


def _ending(job: Object | None) -> str | None:
    assert job is not None, "the Job is gone"
    return next((found["type"] for found in job.get("status", {}).get("conditions", ()) if found["status"] == "True"), None)
