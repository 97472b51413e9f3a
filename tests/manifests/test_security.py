"""Nobody gets more than the manifests' documentation says: no root, no secret, no right beside the named ones, no open network."""

import copy
import re
from typing import Any

import pytest
import yaml

from tests.manifests.built import BUILT, NAMESPACES, OVERLAYS, OWN_NAMESPACE, built, of_kind, pods
from tests.manifests.restricted import findings

GOOD = {
    "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
    "containers": [
        {
            "name": "c",
            "image": "registry/image:1",
            "resources": {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "1", "memory": "1Gi"}},
            "securityContext": {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}},
        }
    ],
}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_pod_is_one_that_the_restricted_standard_lets_in(overlay):
    found = dict(pods(built(f"overlays/{overlay}")))
    assert {"Deployment/mlflow"} <= found.keys()
    assert {name: findings(pod) for name, pod in found.items()} == {name: [] for name in found}


def test_the_runtime_of_kserve_is_among_the_pods_that_are_looked_at():
    found = {name for name, _ in pods(built("overlays/prod-kubeflow"))}
    assert found == {"Deployment/mlflow", "ServingRuntime/erasediff"}


@pytest.mark.parametrize(
    ("where", "value", "finding"),
    [
        ("securityContext.runAsNonRoot", False, "c may run as root"),
        ("containers.0.securityContext.runAsUser", 0, "c may run as root"),
        ("containers.0.securityContext.allowPrivilegeEscalation", True, "c may gain privileges"),
        ("containers.0.securityContext.privileged", True, "c may gain privileges"),
        ("containers.0.securityContext.capabilities", {"drop": ["NET_RAW"]}, "c keeps capabilities"),
        ("containers.0.securityContext.capabilities", {"drop": ["ALL"], "add": ["SYS_ADMIN"]}, "c keeps capabilities"),
        ("securityContext.seccompProfile", {"type": "Unconfined"}, "c has no seccomp profile"),
        ("containers.0.securityContext.readOnlyRootFilesystem", False, "c may write to its root"),
        ("containers.0.resources.limits", {"cpu": "1"}, "c has no requests and limits"),
        ("containers.0.image", "registry:5000/image", "c has no version of its image"),
        ("containers.0.image", "image:latest", "c has no version of its image"),
        ("containers.0.ports", [{"containerPort": 1, "hostPort": 1}], "c takes a port of the node"),
        ("volumes", [{"name": "v", "hostPath": {"path": "/"}}], "volume v is none of the kinds that are let in"),
        ("hostNetwork", True, "it shares the node's hostNetwork"),
    ],
)
def test_control_what_is_not_restricted_is_found(where, value, finding):
    assert findings(GOOD) == []
    bad: Any = copy.deepcopy(GOOD)
    *path, last = (int(part) if part.isdigit() else part for part in where.split("."))
    inner = bad
    for part in path:
        inner = inner[part]
    inner[last] = value
    assert findings(bad) == [finding]


@pytest.mark.parametrize("overlay", OWN_NAMESPACE)
def test_the_namespace_enforces_the_restricted_standard(overlay):
    (namespace,) = of_kind(built(f"overlays/{overlay}"), "Namespace").values()
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def too_much(rule):
    """What no rule may hold: wildcards, secrets, rights to give rights, and changing what has no name."""
    words = {*rule["apiGroups"], *rule["resources"], *rule["verbs"]}
    found = sorted(words & {"*", "secrets", "roles", "rolebindings", "serviceaccounts", "pods/exec", "escalate", "bind", "impersonate"})
    nameless = {"update", "patch", "delete", "deletecollection"} & set(rule["verbs"]) and not rule.get("resourceNames")
    return found + (["nameless"] if nameless and rule["resources"] != ["trainjobs"] else [])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_only_rights_are_those_of_one_narrow_role_in_one_namespace(overlay):
    objects = built(f"overlays/{overlay}")
    assert not {found["kind"] for found in objects} & {"ClusterRole", "ClusterRoleBinding"}
    (role,) = of_kind(objects, "Role").values()
    bindings = of_kind(objects, "RoleBinding")
    assert [too_much(rule) for rule in role["rules"]] == [[] for _ in role["rules"]]
    own, shared = {"erasediff-pipeline": "erasediff-pipeline"}, {"erasediff-launcher": "pipeline-runner"}
    assert {name: binding["roleRef"]["name"] for name, binding in bindings.items()} == (own if overlay in OWN_NAMESPACE else own | shared)
    account = {"kind": "ServiceAccount", "name": "erasediff-pipeline", "namespace": NAMESPACES[overlay]}
    assert [binding["subjects"] for binding in bindings.values()] == [[account] for _ in bindings]


def test_control_a_right_too_many_is_found():
    rule = {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["a"], "verbs": ["get", "update"]}
    assert too_much(rule) == []
    assert too_much(rule | {"resourceNames": []}) == ["nameless"]
    assert too_much(rule | {"resources": ["secrets"]}) == ["secrets"]
    assert too_much(rule | {"verbs": ["*"]}) == ["*"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_nobody_but_the_pipeline_gets_a_token(overlay):
    accounts = of_kind(built(f"overlays/{overlay}"), "ServiceAccount")
    assert {name for name, account in accounts.items() if account.get("automountServiceAccountToken") is not False} == {"erasediff-pipeline"}


OURS = {"app.kubernetes.io/part-of": "erasediff"}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_nothing_comes_in_or_goes_out_that_is_not_named(overlay):
    policies = of_kind(built(f"overlays/{overlay}"), "NetworkPolicy")
    denied = {} if overlay in OWN_NAMESPACE else {"matchLabels": OURS}
    assert policies["erasediff-default-deny"]["spec"] == {"podSelector": denied, "policyTypes": ["Ingress", "Egress"]}
    assert [name for name, policy in policies.items() if is_open(policy["spec"])] == []


def foreign(objects):
    """Selectors that pods of others could match, and a namespace that others have made."""
    selectors = {name: policy["spec"]["podSelector"] for name, policy in of_kind(objects, "NetworkPolicy").items()}
    selectors |= {f"Service {name}": {"matchLabels": service["spec"]["selector"]} for name, service in of_kind(objects, "Service").items()}
    wide = [name for name, selector in selectors.items() if not selector.get("matchLabels", {}).items() >= OURS.items()]
    return sorted([*wide, *of_kind(objects, "Namespace")])


def test_in_kubeflows_own_namespace_nothing_is_selected_but_our_pods():
    assert foreign(built("overlays/single-user")) == []
    assert {found["metadata"].get("namespace") for found in built("overlays/single-user")} == {"kubeflow"}
    assert "erasediff-default-deny" in foreign(built("overlays/dev")), "control: in a namespace of its own it denies to all"
    assert "erasediff" in foreign(built("overlays/dev")), "control: and makes that namespace"


def test_every_pod_that_is_made_later_has_the_label_that_the_policies_select():
    """Pods of steps, of a training job and of a roll-out are in no manifest."""
    from erasediff.cluster.pods import pod_labels
    from pipelines.compile import COMPILED

    assert pod_labels("step").items() >= OURS.items()
    for path in COMPILED.glob("erasure-*.yaml"):
        _, platform = yaml.safe_load_all(path.read_text())
        executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
        assert [executor["podMetadata"]["labels"] for executor in executors.values()] == [pod_labels("step")] * len(executors)
    selected = {
        p["spec"]["podSelector"]["matchLabels"].get("app.kubernetes.io/component")
        for p in of_kind(built("overlays/single-user"), "NetworkPolicy").values()
    }
    assert selected == {None, "step", "serving"}


def is_open(spec):
    """Whether a rule names nobody, or everybody."""
    ends = [rule.get(side) for kind, side in (("ingress", "from"), ("egress", "to")) for rule in spec.get(kind, ())]
    return any(not end or any(one in ({"podSelector": {}}, {"namespaceSelector": {}}) or "0.0.0.0/0" in str(one) for one in end) for end in ends)


def test_control_an_open_rule_is_found():
    assert not is_open({"egress": [{"to": [{"podSelector": {"matchLabels": {"a": "b"}}}]}]})
    for rule in ({}, {"to": []}, {"to": [{"namespaceSelector": {}}]}, {"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}):
        assert is_open({"egress": [rule]})


SECRET_NAME = re.compile(r"PASSWORD|SECRET|TOKEN|ACCESS_KEY|CREDENTIAL", re.IGNORECASE)
SECRET_VALUE = re.compile(r"://[^/\s:@]+:[^/\s@]+@|AKIA[0-9A-Z]{16}|-----BEGIN")


def secrets_in(objects):
    """Objects and variables that hold a secret and not a reference to one."""
    found = [f"Secret/{name}" for name in of_kind(objects, "Secret")]
    for config in of_kind(objects, "ConfigMap").values():
        found += [key for key, value in config.get("data", {}).items() if SECRET_NAME.search(key) or SECRET_VALUE.search(value)]
    for _, pod in pods(objects):
        for variable in (v for container in pod["containers"] for v in container.get("env", ())):
            value = variable.get("value", "")
            found += [variable["name"]] if value and (SECRET_NAME.search(variable["name"]) or SECRET_VALUE.search(value)) else []
    return found


@pytest.mark.parametrize("folder", BUILT)
def test_no_secret_value_is_in_the_manifests(folder):
    assert secrets_in(built(folder)) == []


def test_control_a_secret_value_is_found():
    config = {"kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"URI": "postgresql://user:word@host/db", "AWS_SECRET_ACCESS_KEY": "x"}}
    pod = {"kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [{"env": [{"name": "MLFLOW_TRACKING_TOKEN", "value": "x"}]}]}}
    secret = {"kind": "Secret", "metadata": {"name": "s"}}
    assert secrets_in((config, pod, secret)) == ["Secret/s", "URI", "AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_TOKEN"]
