"""Whether a node can take a pod of a size: asked of the cluster where the Role allows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress

from erasediff.cluster.api import NODE, Cluster, Object
from erasediff.errors import BadInput, EraseDiffError

_KEEP_OFF = {"NoSchedule", "NoExecute"}


def check_nodes(wanted: Mapping[str, str], told: str) -> None:
    """Check that a node of this cluster takes a pod of this size; says nothing where the nodes cannot be listed.

    Args:
        wanted: the pod's resources, as Kubernetes quantities.
        told: the same in words.

    Raises:
        BadInput: none does; the sentence says what the largest can give.
    """
    nodes = None
    with suppress(EraseDiffError), Cluster.configured() as cluster:  # most Roles do not allow it, and the run needs no such answer
        nodes = cluster.list(NODE, {})
    if nodes is not None and (most := shortage(nodes, wanted)) is not None:
        raise BadInput(f"no node of this cluster takes a training step of {told}: {most}; submit with a smaller --cpu, --memory or --gpus.")


def shortage(nodes: Iterable[Object], wanted: Mapping[str, str]) -> str | None:
    """What the nodes can give at most, if none has all that is wanted; ``None`` if one has."""
    from kubernetes.utils.quantity import parse_quantity

    offered = [node["status"].get("allocatable") or {} for node in nodes if _takes_pods(node, wanted)]
    needed = {name: parse_quantity(quantity) for name, quantity in wanted.items()}
    if any(all(parse_quantity(offer.get(name, 0)) >= least for name, least in needed.items()) for offer in offered):
        return None
    if not offered:
        return "none takes pods that tolerate no taint"
    most = {name: max((offer.get(name, "0") for offer in offered), key=parse_quantity) for name in wanted}
    return "the most that a node has is " + ", ".join(f"{quantity} of {name}" for name, quantity in most.items())


def _takes_pods(node: Object, wanted: Mapping[str, str]) -> bool:
    """Whether a node is open to the pod; a step with a GPU tolerates the taint of the GPU's name."""
    taints = node["spec"].get("taints") or ()
    return not node["spec"].get("unschedulable") and all(
        taint["effect"] not in _KEEP_OFF or (taint["key"] in wanted and taint["effect"] == "NoSchedule") for taint in taints
    )
