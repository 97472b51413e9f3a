"""Every task, set up in one place: what each step asks of its node and its namespace, under each profile.

The pipeline is traced once a profile. While it is traced, :func:`configure` reads the profile that :func:`compiled_for`
put in force, so that ``erasure.py`` says what depends on what and nothing else.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from kfp import dsl, kubernetes

from components.images import PIPELINE_CPU, TRAIN_GPU

WORKDIR_CLAIM = "erasediff-workdir"
WORKDIR_MOUNT = "/workdir"
SETTINGS_CONFIG_MAP = "erasediff-settings"
CREDENTIALS_SECRET = "erasediff-credentials"  # noqa: S105 - the name of a Secret, not a secret
USER, GROUP = 10001, 0
GPU = "nvidia.com/gpu"
SHARED_MEMORY = "2Gi"
TRAINJOB_VARIABLE = "ERASEDIFF_TRAINJOB"

ENVIRONMENT = ("MLFLOW_TRACKING_URI", "ERASEDIFF_DVC_REMOTE", "ERASEDIFF_DVC_REMOTE_ENDPOINT_URL")
# What the roll-out and the promotion after it have to know alike; see RollOutSettings in erasediff/records/settings.py.
ROLL_OUT_ENVIRONMENT = tuple(
    f"ERASEDIFF_ROLL_OUT_{name}"
    for name in (
        "BACKEND",
        "NAMESPACE",
        "NAME",
        "PUBLISH_TO",
        "CLAIM",
        "CLAIM_MOUNT",
        "IMAGE",
        "REPLICAS",
        "SHARE_SECONDS",
        "MODE",
        "TIMEOUT_SECONDS",
    )
)
STORE_ENVIRONMENT = ("AWS_ENDPOINT_URL_S3",)  # where models are published to, if that is not Amazon's S3
PURGE_ENVIRONMENT = ("ERASEDIFF_MLFLOW_ARTIFACTS_DESTINATION",)
SIGNING_ENVIRONMENT = ("ERASEDIFF_SIGNING_KEY", "ERASEDIFF_SIGNING_PUBLIC_KEY", "ERASEDIFF_SIGNING_TIMESTAMP_URL")
SIGNER_ENVIRONMENT = ("ERASEDIFF_SIGNING_KEY", "ERASEDIFF_SIGNING_PUBLIC_KEY")  # whether anybody could sign, for those that have no key
LEDGER_ENVIRONMENT = ("ERASEDIFF_LEDGER_ZONE", "ERASEDIFF_LEDGER_OWN_DAYS", "ERASEDIFF_LEDGER_APPROVALS", "ERASEDIFF_LEDGER_APPROVERS")
APPROVERS_CONFIG_MAP, APPROVERS_MOUNT = "erasediff-approvers", "/approvers"
SIGNING_SECRET, SIGNING_MOUNT = "erasediff-signing", "/signing"
_TRACKING = ("MLFLOW_TRACKING_TOKEN",)
_LEDGER = ("ERASEDIFF_LEDGER",)  # an address with a password in it
_STORES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", *_TRACKING)
# Numeric users have no passwd entry, and the root file system is read-only: everything that wants a home goes to /tmp.
# Threads and allocator as in erasediff/environment.py, which speaks for the processes that it starts itself.
_TASK_ENVIRONMENT = {
    "HOME": "/tmp",  # noqa: S108
    "USER": "erasediff",
    "LOGNAME": "erasediff",
    "MPLCONFIGDIR": "/tmp/matplotlib",  # noqa: S108
    "XDG_CACHE_HOME": "/tmp/cache",  # noqa: S108
    "OMP_NUM_THREADS": "1",
    "MALLOC_TRIM_THRESHOLD_": "2147483647",
    "MALLOC_MMAP_THRESHOLD_": "33554432",
}


@dataclass(frozen=True)
class Size:
    """What a task asks of its node; requests are limits, so that a pod is never the first to be evicted."""

    cpu: str
    memory: str
    gpus: int = 0
    minutes: int = 30


SMALL = Size(cpu="1", memory="2Gi")
MEDIUM = Size(cpu="2", memory="4Gi", minutes=120)
ROLLING = Size(cpu="1", memory="2Gi", minutes=60)  # a roll-out that ends in its last minute still has to go back
TRAINING = Size(cpu="4", memory="16Gi", gpus=1, minutes=24 * 60)


@dataclass(frozen=True)
class Task:
    """A step's row: its title, the size it has unless a profile says otherwise, what it may read, and how often it is tried again.

    What ``signs`` has the key of certificates mounted, and nothing else has. What ``releases`` has the public keys of who may approve.
    """

    title: str
    size: Size
    credentials: tuple[str, ...] = ()
    retries: int = 0
    settings: tuple[str, ...] = ENVIRONMENT
    signs: bool = False
    releases: bool = False


_RELEASE_ENVIRONMENT = (*ENVIRONMENT, *LEDGER_ENVIRONMENT, *ROLL_OUT_ENVIRONMENT, *SIGNER_ENVIRONMENT)

# Every step finds its own record and does nothing twice, so trying again is always safe. It is worth it where a step
# speaks to a store that may be away for a minute, or is long and may be evicted. A gate decides the same from the same
# numbers, and a second evaluation draws the same committed seeds: neither can be asked until it says PASS. A roll-out that
# went back is a person's to look at.
TASKS = {
    "check-prerequisites": Task(
        "Check prerequisites",
        SMALL,
        (*_TRACKING, *_LEDGER),
        settings=(*ENVIRONMENT, *LEDGER_ENVIRONMENT, *ROLL_OUT_ENVIRONMENT, *SIGNER_ENVIRONMENT),  # it suppresses what is asked, where it serves
    ),
    "train-base": Task("Train or find the base", TRAINING, _STORES, retries=2),
    "version-forget-set": Task("Version the forget set", SMALL, _STORES, retries=3),
    "erase": Task("Erase", TRAINING, (*_STORES, *_LEDGER), retries=2),
    "evaluate": Task("Evaluate", TRAINING, _TRACKING, retries=1),
    "gate": Task("Gate", SMALL, (*_TRACKING, *_LEDGER)),
    "export-onnx": Task("Export to ONNX", MEDIUM, _LEDGER),
    "register": Task("Register", SMALL, _STORES, retries=3),
    "roll-out": Task("Roll out", ROLLING, (*_STORES, *_LEDGER), settings=(*_RELEASE_ENVIRONMENT, *STORE_ENVIRONMENT), releases=True),
    "promote": Task("Promote", SMALL, (*_TRACKING, *_LEDGER), retries=3, settings=_RELEASE_ENVIRONMENT, releases=True),
    "purge": Task(
        "Purge",
        MEDIUM,
        (*_STORES, *_LEDGER, "ERASEDIFF_MLFLOW_BACKEND_STORE_URI"),
        retries=3,
        settings=(*ENVIRONMENT, *ROLL_OUT_ENVIRONMENT, *STORE_ENVIRONMENT, *PURGE_ENVIRONMENT),
    ),
    "certify": Task(
        "Certify", SMALL, (*_LEDGER, "ERASEDIFF_SIGNING_PASSPHRASE"), settings=(*SIGNING_ENVIRONMENT, "ERASEDIFF_ROLL_OUT_IMAGE"), signs=True
    ),
    "regate": Task("Judge what serves", MEDIUM, _STORES, retries=1),
    "record-outcome": Task("Record the outcome", SMALL, _STORES),
}


@dataclass(frozen=True)
class Profile:
    """A kind of cluster.

    Attributes:
        name: as ``erasediff submit --profile`` takes it; the compiled file is named by it.
        training: the size of the steps that train and sample.
        image: their image; the component's own if unset.
        hardened: whether to ask for a non-root user and shared memory, which runs on this machine need not.
        erasing_nodes: above 0, ``erase`` is a Kubeflow ``TrainJob`` on so many nodes, each of the size ``training``.
    """

    name: str
    training: Size
    image: str | None = None
    hardened: bool = True
    erasing_nodes: int = 0


LOCAL = Profile("local", TRAINING, hardened=False)
PROFILES = (
    Profile("cpu", Size(cpu="4", memory="16Gi", minutes=24 * 60), PIPELINE_CPU),
    Profile("gpu", TRAINING),
    Profile("gpu-multi", Size(cpu="8", memory="32Gi", gpus=2, minutes=24 * 60), erasing_nodes=1),
)
_profile: ContextVar[Profile] = ContextVar("profile", default=LOCAL)


@contextmanager
def compiled_for(profile: Profile) -> Iterator[None]:
    """Put a profile in force while a pipeline is traced."""
    token = _profile.set(profile)
    try:
        yield
    finally:
        _profile.reset(token)


def configure(task: dsl.PipelineTask) -> dsl.PipelineTask:
    """Set a task up by its row in :data:`TASKS` and the profile in force.

    No task is cached by the backend: its cache sees neither the workdir nor MLflow nor DVC. Steps find their own
    records instead and do nothing twice.
    """
    profile, row = _profile.get(), TASKS[re.sub(r"-\d+$", "", task.name)]  # kfp numbers the second task of a component
    size = profile.training if row.size == TRAINING else row.size
    if profile.erasing_nodes and task.name == "erase":
        task.set_env_variable(TRAINJOB_VARIABLE, json.dumps(trainjob_settings(profile), sort_keys=True))
        size = Size(SMALL.cpu, SMALL.memory, minutes=size.minutes + 120)  # it waits, and longer than what it waits for may take
    task.set_caching_options(False)
    task.set_display_name(row.title)
    task.set_cpu_request(size.cpu).set_cpu_limit(size.cpu)
    task.set_memory_request(size.memory).set_memory_limit(size.memory)
    kubernetes.set_timeout(task, seconds=size.minutes * 60)
    _give(task, row)
    if row.size == TRAINING and profile.image:
        task.set_container_image(profile.image)
    if size.gpus:
        task.set_accelerator_type(GPU).set_accelerator_limit(size.gpus)
    if profile.hardened:
        _harden(task, row, size)
    return task


def _give(task: dsl.PipelineTask, row: Task) -> None:
    """The environment, the workdir, and those settings and credentials that the step needs."""
    for name, value in _TASK_ENVIRONMENT.items():
        task.set_env_variable(name, value)
    kubernetes.mount_pvc(task, pvc_name=WORKDIR_CLAIM, mount_path=WORKDIR_MOUNT)
    kubernetes.use_config_map_as_env(
        task, config_map_name=SETTINGS_CONFIG_MAP, config_map_key_to_env={name: name for name in row.settings}, optional=True
    )
    if row.credentials:
        kubernetes.use_secret_as_env(task, secret_name=CREDENTIALS_SECRET, secret_key_to_env={name: name for name in row.credentials}, optional=True)
    if row.signs:
        kubernetes.use_secret_as_volume(task, secret_name=SIGNING_SECRET, mount_path=SIGNING_MOUNT, optional=True)
    if row.releases:
        kubernetes.use_config_map_as_volume(task, config_map_name=APPROVERS_CONFIG_MAP, mount_path=APPROVERS_MOUNT, optional=True)


def _harden(task: dsl.PipelineTask, row: Task, size: Size) -> None:
    kubernetes.set_security_context(task, run_as_user=USER, run_as_group=GROUP, run_as_non_root=True)
    if row.retries:
        task.set_retry(row.retries, backoff_duration="60s", backoff_factor=2, backoff_max_duration="600s")
    if row.size == TRAINING:
        # Processes that load and sample side by side hand tensors over in /dev/shm, which is 64 MiB by default.
        kubernetes.empty_dir_mount(task, volume_name="shared-memory", mount_path="/dev/shm", medium="Memory", size_limit=SHARED_MEMORY)  # noqa: S108
    if size.gpus:
        kubernetes.add_toleration(task, key=GPU, operator="Exists", effect="NoSchedule")


def trainjob_settings(profile: Profile) -> dict[str, object]:
    """What ``erase`` needs to make a TrainJob of itself, as ``erasediff.records.trainjob.TrainJobSettings`` reads it."""
    size = profile.training
    return {
        "image": profile.image or TRAIN_GPU,
        "nodes": profile.erasing_nodes,
        "processes_per_node": size.gpus,
        "resources": {"cpu": size.cpu, "memory": size.memory, GPU: str(size.gpus)},
        "minutes": size.minutes,
        "claim": WORKDIR_CLAIM,
        "mount": WORKDIR_MOUNT,
        "shared_memory": SHARED_MEMORY,
        "environment": _TASK_ENVIRONMENT,
        "settings": {"name": SETTINGS_CONFIG_MAP, "keys": list(ENVIRONMENT)},
        "credentials": {"name": CREDENTIALS_SECRET, "keys": list(TASKS["erase"].credentials)},
        "user": USER,
        "group": GROUP,
    }
