"""The Pod Security Standard `restricted`, as far as these manifests can break it, and what this house asks beside it. Pure."""

from typing import Any

_VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}


def findings(pod: dict[str, Any]) -> list[str]:
    """What is wrong with a pod."""
    found = [f"it shares the node's {name}" for name in ("hostNetwork", "hostPID", "hostIPC") if pod.get(name)]
    found += [f"volume {v['name']} is none of the kinds that are let in" for v in pod.get("volumes", ()) if not (set(v) - {"name"}) <= _VOLUMES]
    for container in [*pod["containers"], *pod.get("initContainers", ())]:
        found += [f"{container['name']} {finding}" for finding in _of_container(container, pod.get("securityContext", {}))]
    return found


def _of_container(container: dict[str, Any], of_pod: dict[str, Any]) -> list[str]:
    own = container.get("securityContext", {})
    context = of_pod | own
    capabilities = own.get("capabilities", {})
    resources = container.get("resources", {})
    return [
        finding
        for finding, wrong in {
            "may run as root": context.get("runAsNonRoot") is not True or context.get("runAsUser") == 0,
            "may gain privileges": own.get("allowPrivilegeEscalation") is not False or bool(own.get("privileged")),
            "keeps capabilities": "ALL" not in capabilities.get("drop", ()) or bool(set(capabilities.get("add", ())) - {"NET_BIND_SERVICE"}),
            "has no seccomp profile": context.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"),
            "takes a port of the node": any(port.get("hostPort") for port in container.get("ports", ())),
            "may write to its root": own.get("readOnlyRootFilesystem") is not True,
            "has no requests and limits": any({"cpu", "memory"} - resources.get(kind, {}).keys() for kind in ("requests", "limits")),
            "has no version of its image": container["image"].endswith(":latest") or ":" not in container["image"].rpartition("/")[2],
        }.items()
        if wrong
    ]
