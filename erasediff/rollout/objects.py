"""The Deployments and Services of a roll-out: pure functions from settings and a candidate to dictionaries."""

from __future__ import annotations

from typing import Any, Literal

from erasediff.cluster.api import Kind, Object
from erasediff.cluster.pods import pod_labels
from erasediff.errors import BadInput
from erasediff.records.settings import RollOutSettings
from erasediff.rollout.backend import PREFIX, Candidate
from erasediff.rollout.rules import CONFIG_MAP_NAME, KEY

Track = Literal["stable", "canary"]

PORT = 8080
RULES_MOUNT = "/etc/erasediff"
ISSUER_CONFIG_MAP, ISSUER_MOUNT, ISSUER_KEY = "erasediff-issuer", "/etc/erasediff-issuer", "signing-key.pub"
"""What holds the issuer's public key, which the operator puts there; the pipeline's Role cannot change it."""
_COMPONENT = "serving"
_MANAGED_BY = "app.kubernetes.io/managed-by"
_USER = 65532  # an arbitrary number: Kubernetes requires one, and an image may name its user by a word
_ANSWER_SECONDS = 60  # time for accepted requests after SIGTERM


def deployment_name(settings: RollOutSettings, track: Track) -> str:
    """The name of a track's Deployment and Service."""
    return settings.name if track == "stable" else f"{settings.name}-canary"


def selector(settings: RollOutSettings, track: Track | None = None) -> dict[str, str]:
    """The labels of the pods of a track, or of both."""
    labels = {"app.kubernetes.io/instance": settings.name, "app.kubernetes.io/component": _COMPONENT}
    return labels if track is None else labels | {f"{PREFIX}track": track}


def labels_of(settings: RollOutSettings, track: Track) -> dict[str, str]:
    """The labels of a track's objects."""
    return {**pod_labels(_COMPONENT), _MANAGED_BY: "erasediff", **selector(settings, track)}


def check_own(kind: Kind, present: Object | None) -> None:
    """Raise BadInput if an object is there that no roll-out made."""
    if present is not None and present["metadata"].get("labels", {}).get(_MANAGED_BY) != "erasediff":
        namespace, name = present["metadata"]["namespace"], present["metadata"]["name"]
        raise BadInput(f"{kind.kind} {namespace}/{name} was not made by a roll-out: choose another ERASEDIFF_ROLL_OUT_NAME.")


def service(settings: RollOutSettings, track: Track) -> Object:
    """A track's Service, on port 80."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": deployment_name(settings, track), "labels": labels_of(settings, track)},
        "spec": {"selector": selector(settings, track), "ports": [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}]},
    }


def deployment(settings: RollOutSettings, track: Track, candidate: Candidate, replicas: int) -> Object:
    """A track's Deployment: a new pod is ready before an old one stops."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": deployment_name(settings, track), "labels": labels_of(settings, track), "annotations": candidate.annotations()},
        "spec": {
            "replicas": replicas,
            "revisionHistoryLimit": 2,
            "progressDeadlineSeconds": max(10, settings.timeout_seconds // 3),
            "minReadySeconds": 1,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "selector": {"matchLabels": selector(settings, track)},
            "template": {
                "metadata": {"labels": labels_of(settings, track), "annotations": candidate.annotations()},
                "spec": pod(settings, candidate),
            },
        },
    }


def pod(settings: RollOutSettings, candidate: Candidate) -> Object:
    """A pod that serves a candidate, within the Pod Security standard `restricted`."""
    return {
        "serviceAccountName": settings.service_account,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": settings.drain_seconds + _ANSWER_SECONDS,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "runAsGroup": _USER,
            "fsGroup": _USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(settings, candidate)],
        "volumes": [
            {"name": "tmp", "emptyDir": {}},
            {"name": "rules", "configMap": {"name": CONFIG_MAP_NAME, "items": [{"key": KEY, "path": KEY}]}},
            {"name": "issuer", "configMap": {"name": ISSUER_CONFIG_MAP}},
            *_claim(settings),
        ],
    }


def _container(settings: RollOutSettings, candidate: Candidate) -> Object:
    key = f"{ISSUER_MOUNT}/{ISSUER_KEY}"
    mounts: list[dict[str, Any]] = [
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108
        {"name": "rules", "mountPath": RULES_MOUNT, "readOnly": True},
        {"name": "issuer", "mountPath": ISSUER_MOUNT, "readOnly": True},
    ]
    if _claim(settings):
        mounts.append({"name": "models", "mountPath": settings.claim_mount, "readOnly": True})
    return {
        "name": "serve",
        "image": settings.image,
        "imagePullPolicy": settings.pull_policy,
        "command": ["erasediff", "serve", "--model", candidate.uri, "--key", key, "--rules", f"{RULES_MOUNT}/{KEY}", "--port", str(PORT)],
        "env": [{"name": "HOME", "value": "/tmp"}],  # noqa: S108 - the only folder that can be written
        "envFrom": [
            {"configMapRef": {"name": settings.environment_config_map, "optional": True}},
            {"secretRef": {"name": settings.environment_secret, "optional": True}},
        ],
        "ports": [{"name": "http", "containerPort": PORT, "protocol": "TCP"}],
        # Fetching and checking a model takes time; the pod must not be killed meanwhile.
        "startupProbe": _probe("live", period=2, failures=max(30, settings.timeout_seconds // 4)),
        "readinessProbe": _probe("ready", period=2, failures=3),
        "livenessProbe": _probe("live", period=10, failures=6),
        # The pod leaves the Service's endpoints at once, but clients may still have its address.
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", str(settings.drain_seconds)]}}},
        "resources": {
            "requests": {"cpu": settings.cpu, "memory": settings.memory},
            "limits": {"cpu": settings.cpu_limit, "memory": settings.memory_limit},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts,
    }


def _probe(what: str, period: int, failures: int) -> Object:
    return {
        "httpGet": {"path": f"/v2/health/{what}", "port": "http"},
        "periodSeconds": period,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }


def _claim(settings: RollOutSettings) -> list[Object]:
    if settings.claim is None:
        return []
    return [{"name": "models", "persistentVolumeClaim": {"claimName": settings.claim, "readOnly": True}}]
