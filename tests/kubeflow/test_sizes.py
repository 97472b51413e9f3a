"""The lie: 'it runs on this cluster', of steps that no node can take, or of a size that the model never needed."""

import pytest
import torch

from erasediff.cluster.nodes import check_nodes, shortage
from erasediff.errors import BadInput
from erasediff.models.families.unet import build_unet
from erasediff.models.footprint import activations, parameters, training_size
from erasediff.records.config import DenoiserConfig, RunConfig
from erasediff.records.sizes import PROFILE_SIZES
from erasediff.submit import chosen_size
from tests.kubeflow.fake_trainer import FakeTrainerApi, discovery
from tests.kubeflow.server import Refused
from tests.test_cluster_connection import kubeconfig

SMALL = {"cpu": "2", "memory": "4Gi"}
WITH_GPU = SMALL | {"nvidia.com/gpu": "1"}


def configured(**fields) -> RunConfig:
    return RunConfig.parse(fields, "the test")


# --- from the model


@pytest.mark.parametrize(
    ("shape", "channels", "side", "classes"),
    [
        ({}, 1, 8, 10),
        ({"block_out_channels": (32, 64, 128), "layers_per_block": 2, "conditioning": "scale-shift"}, 3, 32, 10),
        ({"block_out_channels": (64, 32, 96), "layers_per_block": 1}, 3, 8, 5),
        ({"block_out_channels": (32,), "layers_per_block": 3}, 3, 8, 5),
    ],
    ids=["the demo's", "scale-shift", "narrower and wider", "one level"],
)
def test_the_parameters_are_those_of_the_network(shape, channels, side, classes):
    config = DenoiserConfig(**shape)
    with torch.device("meta"):
        unet = build_unet(config, channels, side, classes)
        outputs = []
        for module in unet.modules():
            if type(module).__name__ == "ResnetBlock2D":
                module.register_forward_hook(lambda _, __, output: outputs.append(output.numel()))
        unet(torch.empty(1, channels, side, side), torch.empty(1), class_labels=torch.zeros(1, dtype=torch.long))
    assert parameters(config, channels, classes) == sum(p.numel() for p in unet.parameters())
    assert activations(config, side) == sum(outputs)


def test_a_larger_model_or_batch_gets_more_memory_and_the_demo_fits_a_small_node():
    demo = training_size(RunConfig(), 0)
    assert demo.resources() == {"cpu": "1", "memory": "2Gi"}
    wide = {"block_out_channels": (64, 128, 256), "layers_per_block": 2}
    images = {"kind": "folder", "path": "/workdir/images", "name": "images", "size": 32}
    mid = configured(denoiser=wide, dataset=images)
    batch = configured(denoiser=wide, dataset=images, base_training={"batch_size": 1024})
    memory = [int(training_size(config, 0).memory.removesuffix("Gi")) for config in (RunConfig(), mid, batch)]
    assert memory == sorted(set(memory))
    assert training_size(mid, 0).cpu == "2"
    two = training_size(mid, 2)
    assert (two.gpus, two.cpu) == (2, "4"), "a process for each GPU"


def test_what_is_asked_for_is_taken_and_a_champion_that_is_not_known_here_gets_the_profiles_size():
    assert chosen_size("cpu", RunConfig(), memory="3Gi").size.resources() == {"cpu": "1", "memory": "3Gi"}
    champion = chosen_size("gpu-multi", configured(base_training=None), gpus=4)
    assert champion.size == PROFILE_SIZES["gpu-multi"].model_copy(update={"gpus": 4})
    assert "not known here" in champion.source


# --- and the nodes


def node(cpu="4", memory="8Gi", gpus=None, **spec):
    allocatable = {"cpu": cpu, "memory": memory, "pods": "110"} | ({"nvidia.com/gpu": gpus} if gpus else {})
    return {"metadata": {"name": "n"}, "spec": spec, "status": {"allocatable": allocatable}}


def taint(key, effect="NoSchedule"):
    return {"taints": [{"key": key, "effect": effect}]}


@pytest.mark.parametrize(
    ("nodes", "wanted", "sentence"),
    [
        ([node()], SMALL, None),
        ([node(cpu="1900m"), node(memory="3500Mi")], SMALL, "the most that a node has is 4 of cpu, 8Gi of memory"),
        ([node(cpu="2000m", memory="4294967296")], SMALL, None),
        ([node()], WITH_GPU, "4 of cpu, 8Gi of memory, 0 of nvidia.com/gpu"),
        ([node(gpus="1", **taint("nvidia.com/gpu"))], WITH_GPU, None),
        ([node(gpus="1", **taint("nvidia.com/gpu"))], SMALL, "none takes pods that tolerate no taint"),
        ([node(**taint("node-role.kubernetes.io/control-plane"))], SMALL, "none takes pods that tolerate no taint"),
        ([node(**taint("soft", "PreferNoSchedule"))], SMALL, None),
        ([node(unschedulable=True)], SMALL, "none takes pods that tolerate no taint"),
        ([], SMALL, "none takes pods"),
    ],
)
def test_a_size_that_no_node_has_is_seen(nodes, wanted, sentence):
    found = shortage(nodes, wanted)
    assert (found is None) if sentence is None else sentence in found


class Nodes(FakeTrainerApi):
    """The same stand-in for an API server, with nodes."""

    def __init__(self, answer: list[dict] | Refused) -> None:
        super().__init__()
        self.nodes = answer

    def answer(self, method, path, query, headers, body):
        if path == "/api/v1":
            kind = {"name": "nodes", "singularName": "node", "namespaced": False, "kind": "Node", "verbs": ["list"]}
            known = discovery(self.groups)[path]
            return known | {"resources": [*known["resources"], kind]}
        if (method, path) != ("GET", "/api/v1/nodes"):
            return super().answer(method, path, query, headers, body)
        if isinstance(self.nodes, Refused):
            raise self.nodes
        return {"kind": "NodeList", "apiVersion": "v1", "items": self.nodes}


FORBIDDEN = Refused(
    403, 'nodes is forbidden: User "system:serviceaccount:kubeflow:pipeline-runner" cannot list resource "nodes" at the cluster scope'
)


@pytest.mark.parametrize(("answer", "refused"), [([node(cpu="1")], True), ([node()], False), (FORBIDDEN, False)], ids=["too small", "fits", "403"])
def test_the_step_says_so_before_it_opens_an_attempt_and_says_nothing_where_it_may_not_ask(answer, refused, tmp_path, monkeypatch):
    with Nodes(answer) as fake:
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path / "config", fake.host)))
        if not refused:
            check_nodes(SMALL, "2 CPUs, 4Gi")
        else:
            with pytest.raises(BadInput, match=r"^no node of this cluster takes a training step of 2 CPUs, 4Gi: .*smaller --cpu, .*\.$"):
                check_nodes(SMALL, "2 CPUs, 4Gi")
    assert ("GET", "/api/v1/nodes") in fake.requests, "control: it was asked"


def test_no_cluster_is_no_reason_to_stop(monkeypatch):
    monkeypatch.setenv("KUBECONFIG", "/nowhere")
    check_nodes(SMALL, "2 CPUs, 4Gi")
