"""Every task's resources, caching, retries, volume and environment, set in one place."""

from dataclasses import dataclass

from kfp import dsl, kubernetes

WORKDIR_CLAIM = "erasediff-workdir"
WORKDIR_MOUNT = "/workdir"
SETTINGS_CONFIG_MAP = "erasediff-settings"
CREDENTIALS_SECRET = "erasediff-credentials"  # noqa: S105 - the name of a Secret, not a secret

ENVIRONMENT = ("MLFLOW_TRACKING_URI", "ERASEDIFF_DVC_REMOTE", "ERASEDIFF_DVC_REMOTE_ENDPOINT_URL")
_CREDENTIALS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_TOKEN")
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
    """What a task asks of its node."""

    cpu: str
    memory: str
    gpus: int = 0
    minutes: int = 30


SMALL = Size(cpu="1", memory="2Gi")
MEDIUM = Size(cpu="2", memory="4Gi", minutes=120)
TRAINING = Size(cpu="4", memory="16Gi", gpus=1, minutes=24 * 60)


def configure(task: dsl.PipelineTask, size: Size) -> dsl.PipelineTask:
    """Set a task up.

    No task is cached by the backend: its cache sees neither the workdir nor MLflow nor DVC. Steps find their own
    records instead and do nothing twice.
    """
    task.set_caching_options(False)
    task.set_display_name(task.name.replace("-", " "))
    task.set_cpu_request(size.cpu).set_cpu_limit(size.cpu)
    task.set_memory_request(size.memory).set_memory_limit(size.memory)
    if size.gpus:
        task.set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(size.gpus)
    for name, value in _TASK_ENVIRONMENT.items():
        task.set_env_variable(name, value)
    kubernetes.mount_pvc(task, pvc_name=WORKDIR_CLAIM, mount_path=WORKDIR_MOUNT)
    kubernetes.use_config_map_as_env(
        task, config_map_name=SETTINGS_CONFIG_MAP, config_map_key_to_env={name: name for name in ENVIRONMENT}, optional=True
    )
    kubernetes.use_secret_as_env(task, secret_name=CREDENTIALS_SECRET, secret_key_to_env={name: name for name in _CREDENTIALS}, optional=True)
    kubernetes.set_timeout(task, seconds=size.minutes * 60)
    return task
