"""Set up every task in one place: resources, environment, volumes and secrets, from the table of steps and the profile.

The pipeline is traced once per profile. During tracing, :func:`task_of` reads the profile that :func:`compiled_for`
set, so that ``erasure.py`` states only the dependencies.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from kfp import dsl, kubernetes

from components.images import PIPELINE_CPU, TRAIN_GPU
from components.shapes import component_of
from erasediff.cluster.pods import pod_labels
from erasediff.environment import KUBEFLOW_RUN
from erasediff.records.sizes import GPU, PROFILE_SIZES, TrainingSize
from erasediff.records.trainjob import SETTINGS_VARIABLE
from erasediff.steps.table import ENVIRONMENT, SMALL, TRAINING, Role, Step

WORKDIR_CLAIM = "erasediff-workdir"
WORKDIR_MOUNT = "/workdir"
SETTINGS_CONFIG_MAP = "erasediff-settings"
CREDENTIALS_SECRET = "erasediff-credentials"  # noqa: S105 - the name of a Secret, not a secret
USER, GROUP = 10001, 0
SHARED_MEMORY = "2Gi"
_WAIT_MINUTES = 120

APPROVERS_CONFIG_MAP, APPROVERS_MOUNT = "erasediff-approvers", "/approvers"
SIGNING_SECRET, SIGNING_MOUNT = "erasediff-signing", "/signing"
# Numeric users have no passwd entry, and the root file system is read-only: everything that needs a home directory goes to /tmp.
# Threads and allocator as in erasediff/environment.py, which sets them for local processes.
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
class Profile:
    """A kind of cluster.

    Attributes:
        name: as ``erasediff submit --profile`` takes it; it names the compiled file.
        training: the size of the steps that train and sample, of a run that names no other.
        image: their image; the component's own if unset.
        hardened: whether to require a non-root user and shared memory; local runs need neither.
        erasing_nodes: above 0, ``erase`` is a Kubeflow ``TrainJob`` on so many nodes, each of the size ``training``.
    """

    name: str
    training: TrainingSize
    image: str | None = None
    hardened: bool = True
    erasing_nodes: int = 0


LOCAL = Profile("local", PROFILE_SIZES["cpu"], hardened=False)
PROFILES = (
    Profile("cpu", PROFILE_SIZES["cpu"], PIPELINE_CPU),
    Profile("gpu", PROFILE_SIZES["gpu"]),
    Profile("gpu-multi", PROFILE_SIZES["gpu-multi"], erasing_nodes=1),
)
_profile: ContextVar[Profile] = ContextVar("profile", default=LOCAL)


@contextmanager
def compiled_for(profile: Profile) -> Iterator[None]:
    """Set a profile while a pipeline is traced."""
    token = _profile.set(profile)
    try:
        yield
    finally:
        _profile.reset(token)


@dataclass(frozen=True)
class Training:
    """The pipeline's parameters for the size of the steps that train and sample; kfp's channels while the pipeline is traced."""

    cpu: str
    memory: str
    gpus: str

    def inputs(self) -> dict[str, str]:
        """The inputs of a component that checks this size or hands it on."""
        return {"training_cpu": self.cpu, "training_memory": self.memory, "training_gpus": self.gpus}


def task_of(row: Step, training: Training, **inputs: object) -> dsl.PipelineTask:
    """A step's task, set up from its row and the current profile.

    No task is cached by the backend: its cache sees neither the workdir nor MLflow nor DVC. Steps find their own
    records instead and repeat nothing.
    """
    profile, sized = _profile.get(), training.inputs() if row.distributed or row.role is Role.OPENS else {}
    task = component_of(row)(step=row.name, **inputs, **sized)
    waits = bool(profile.erasing_nodes) and row.distributed  # for a TrainJob, so its limit is longer
    trains = row.size == TRAINING and not waits
    if waits:
        task.set_env_variable(SETTINGS_VARIABLE, json.dumps(trainjob_settings(profile, row), sort_keys=True))
    task.set_caching_options(False)
    task.set_display_name(row.title)
    if trains:
        _size(task, training.cpu, training.memory)
        # Without this kfp 2.17 does not hand a parameter that only a task's resources name down into the conditions around the task.
        task.register_pipeline_channels([training.cpu, training.memory])
    else:
        own = SMALL if waits else row.size
        _size(task, own.cpu, own.memory)
    kubernetes.set_timeout(task, seconds=(row.size.minutes + (_WAIT_MINUTES if waits else 0)) * 60)
    _give(task, row)
    if row.size == TRAINING and profile.image:
        task.set_container_image(profile.image)
    if profile.hardened:
        _harden(task, row)
    if trains and profile.training.gpus:
        task.set_accelerator_type(GPU).set_accelerator_limit(training.gpus)
        task.register_pipeline_channels([training.gpus])
        kubernetes.add_toleration(task, key=GPU, operator="Exists", effect="NoSchedule")
    return task


def _size(task: dsl.PipelineTask, cpu: str, memory: str) -> None:
    task.set_cpu_request(cpu).set_cpu_limit(cpu).set_memory_request(memory).set_memory_limit(memory)


def _give(task: dsl.PipelineTask, row: Step) -> None:
    """The environment, the workdir, and the settings and credentials that the step needs."""
    for name, value in _TASK_ENVIRONMENT.items():
        task.set_env_variable(name, value)
    kubernetes.mount_pvc(task, pvc_name=WORKDIR_CLAIM, mount_path=WORKDIR_MOUNT)
    kubernetes.use_config_map_as_env(
        task, config_map_name=SETTINGS_CONFIG_MAP, config_map_key_to_env={name: name for name in row.settings}, optional=True
    )
    if row.credentials:
        kubernetes.use_secret_as_env(task, secret_name=CREDENTIALS_SECRET, secret_key_to_env={name: name for name in row.credentials}, optional=True)
    if row.mounts_signing_key:
        kubernetes.use_secret_as_volume(task, secret_name=SIGNING_SECRET, mount_path=SIGNING_MOUNT, optional=True)
    if row.mounts_approver_keys:
        kubernetes.use_config_map_as_volume(task, config_map_name=APPROVERS_CONFIG_MAP, mount_path=APPROVERS_MOUNT, optional=True)


def _harden(task: dsl.PipelineTask, row: Step) -> None:
    kubernetes.use_field_path_as_env(task, env_name=KUBEFLOW_RUN, field_path="metadata.labels['pipeline/runid']")
    for name, value in pod_labels("step").items():
        kubernetes.add_pod_label(task, name, value)
    kubernetes.set_security_context(task, run_as_user=USER, run_as_group=GROUP, run_as_non_root=True)
    if row.size == TRAINING:
        # Parallel worker processes exchange tensors in /dev/shm, which is 64 MiB by default.
        kubernetes.empty_dir_mount(task, volume_name="shared-memory", mount_path="/dev/shm", medium="Memory", size_limit=SHARED_MEMORY)  # noqa: S108


def trainjob_settings(profile: Profile, row: Step) -> dict[str, object]:
    """What ``erase`` needs to create its TrainJob beside its size, as ``erasediff.records.trainjob.TrainJobSettings`` reads it."""
    return {
        "image": profile.image or TRAIN_GPU,
        "nodes": profile.erasing_nodes,
        "minutes": row.size.minutes,
        "claim": WORKDIR_CLAIM,
        "mount": WORKDIR_MOUNT,
        "shared_memory": SHARED_MEMORY,
        "environment": _TASK_ENVIRONMENT,
        "settings": {"name": SETTINGS_CONFIG_MAP, "keys": list(ENVIRONMENT)},
        "credentials": {"name": CREDENTIALS_SECRET, "keys": list(row.credentials)},
        "user": USER,
        "group": GROUP,
    }
