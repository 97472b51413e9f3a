"""The lies: 'it runs restricted', 'no request is lost', 'the rules are mounted'. What these objects do is shown in tests/cluster."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from erasediff.records.settings import RollOutSettings
from erasediff.rollout.backend import Candidate, serving_candidate
from erasediff.rollout.objects import ISSUER_CONFIG_MAP, ISSUER_KEY, ISSUER_MOUNT, deployment, selector, service

ROOT = Path(__file__).parents[2]
RUNTIME = "manifests/components/kserve/runtime.yaml"
SETTINGS = RollOutSettings(backend="deployment", image="example.org/serve@sha256:0", publish_to="s3://models")


def faults(pod: dict) -> set[str]:
    """What the Pod Security standard `restricted` would refuse, and what a read-only root needs."""
    found, context = set(), pod["securityContext"]
    if not context.get("runAsNonRoot") or context.get("runAsUser") == 0:
        found.add("root")
    if context.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        found.add("seccomp")
    for container in pod["containers"]:
        own = container["securityContext"]
        if own.get("allowPrivilegeEscalation") is not False:
            found.add("escalation")
        if own.get("capabilities", {}).get("drop") != ["ALL"]:
            found.add("capabilities")
        if not own.get("readOnlyRootFilesystem"):
            found.add("root file system")
        if not {"cpu", "memory"} <= set(container["resources"]["requests"]) & set(container["resources"]["limits"]):
            found.add("resources")
    if {tuple(volume)[1] for volume in pod["volumes"]} - {"emptyDir", "configMap", "persistentVolumeClaim"}:
        found.add("volumes")
    return found


@pytest.mark.parametrize("track", ["stable", "canary"])
def test_pods_are_restricted(candidate: Candidate, track) -> None:
    pod = deployment(SETTINGS, track, candidate, 1)["spec"]["template"]["spec"]
    assert not faults(pod)
    assert not pod["automountServiceAccountToken"]


@pytest.mark.parametrize(
    ("path", "value", "fault"),
    [
        (("securityContext", "runAsNonRoot"), False, "root"),
        (("securityContext", "seccompProfile"), {}, "seccomp"),
        (("containers", 0, "securityContext", "capabilities"), {}, "capabilities"),
        (("containers", 0, "securityContext", "readOnlyRootFilesystem"), False, "root file system"),
        (("containers", 0, "resources", "limits"), {}, "resources"),
    ],
)
def test_control_a_fault_is_seen(candidate: Candidate, path: tuple, value: object, fault: str) -> None:
    pod = deployment(SETTINGS, "stable", candidate, 1)["spec"]["template"]["spec"]
    place = pod
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    assert faults(pod) == {fault}


def test_an_old_pod_goes_only_when_a_new_one_is_there_and_answers_until_it_is_forgotten(candidate: Candidate) -> None:
    spec = deployment(SETTINGS, "stable", candidate, 3)["spec"]
    pod = spec["template"]["spec"]
    assert spec["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    assert pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"] == ["sleep", str(SETTINGS.drain_seconds)]
    assert pod["terminationGracePeriodSeconds"] > SETTINGS.drain_seconds
    assert pod["containers"][0]["terminationMessagePolicy"] == "FallbackToLogsOnError"


def test_the_rules_and_a_claim_are_mounted_where_the_command_looks(candidate: Candidate) -> None:
    settings = SETTINGS.model_copy(update={"claim": "models", "claim_mount": "/workdir"})
    pod = deployment(settings, "stable", candidate, 1)["spec"]["template"]["spec"]
    mounts = {mount["name"]: mount for mount in pod["containers"][0]["volumeMounts"]}
    command = pod["containers"][0]["command"]
    assert command[command.index("--rules") + 1] == f"{mounts['rules']['mountPath']}/rules.yaml"
    assert mounts["models"]["mountPath"] == "/workdir"
    assert mounts["models"]["readOnly"]
    assert "models" not in {
        m["name"] for m in deployment(SETTINGS, "stable", candidate, 1)["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]
    }


def test_whatever_starts_a_server_in_a_cluster_pins_the_key_of_the_same_config_map(candidate: Candidate) -> None:
    """The pods of a roll-out, KServe's runtime, and the image by itself. Control: what they name is mounted there, from the operator's ConfigMap."""
    pinned = ["--key", f"{ISSUER_MOUNT}/{ISSUER_KEY}"]
    runtime = next(found["spec"] for found in yaml.safe_load_all((ROOT / RUNTIME).read_text()) if found["kind"] == "ServingRuntime")
    for pod in (deployment(SETTINGS, "stable", candidate, 1)["spec"]["template"]["spec"], runtime):
        (container,) = pod["containers"]
        words = container.get("command") or container["args"]
        assert words[words.index("--key") :][:2] == pinned
        assert "--insecure" not in words
        (volume,) = (volume["name"] for volume in pod["volumes"] if volume.get("configMap", {}).get("name") == ISSUER_CONFIG_MAP)
        assert {"name": volume, "mountPath": ISSUER_MOUNT, "readOnly": True} in container["volumeMounts"], "control"
    (said,) = (line for line in (ROOT / "images/serve.Containerfile").read_text().splitlines() if line.startswith("CMD"))
    words = json.loads(said.removeprefix("CMD "))
    assert words[words.index("--key") :][:2] == pinned


def test_the_stable_service_does_not_select_a_canary_before_it_is_tested(candidate: Candidate) -> None:
    canary = deployment(SETTINGS, "canary", candidate, 1)["spec"]["template"]["metadata"]["labels"]
    assert not service(SETTINGS, "stable")["spec"]["selector"].items() <= canary.items()
    assert service(SETTINGS, "canary")["spec"]["selector"].items() <= canary.items()
    assert selector(SETTINGS).items() <= canary.items(), "control: sharing does select it"


def test_what_serves_can_be_judged_by_its_annotations_which_name_no_class(candidate: Candidate) -> None:
    made = deployment(SETTINGS, "stable", candidate, 1)
    assert "class_names" in candidate.model.canonical().decode(), "control"
    assert "class_names" not in json.dumps(made)
    assert serving_candidate(made["spec"]["template"]["metadata"]["annotations"]) == candidate
    former = json.dumps({"classes": 10, "forgotten": [8], "dataset": "digits", **candidate.servable.model_dump(mode="json")})
    assert serving_candidate({"erasediff.io/uri": candidate.uri, "erasediff.io/served": former}) == candidate, "of an earlier version"
    assert serving_candidate({"erasediff.io/uri": candidate.uri, "erasediff.io/served": former.replace('"PASS"', '"FAIL"')}) != candidate, "control"
    assert serving_candidate({"erasediff.io/uri": "x"}) is None
    assert serving_candidate(None) is None
