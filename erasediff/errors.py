"""Errors that a user can act on, each with the exit code of the command.

Every message is one sentence that says what is wrong and what to do. Any other exception is unexpected: the command line writes its traceback
to a log file and exits with 1.
"""

from __future__ import annotations

import errno
import re
from enum import IntEnum


class ExitCode(IntEnum):
    """The exit status of every ``erasediff`` command."""

    OK = 0
    UNEXPECTED = 1
    BAD_INPUT = 2
    GATE_FAIL = 10
    GATE_INCONCLUSIVE = 11
    ROLLED_BACK = 12
    UNFINISHED = 13
    AWAITING_APPROVAL = 14
    DUE = 20
    OVERDUE = 21
    INTERRUPTED = 130


class EraseDiffError(Exception):
    """Base of all errors whose message is meant for the user."""

    exit_code: ExitCode = ExitCode.UNEXPECTED


class BadInput(EraseDiffError):
    """An input is wrong: a request, a config, a policy, a dataset, a folder, an address."""

    exit_code = ExitCode.BAD_INPUT


class IntegrityError(BadInput):
    """Stored bytes do not match the digest in a record."""


class Conflict(BadInput):
    """Another process was first: the object has changed since the caller read it."""


class Unreachable(BadInput):
    """A service that the settings name does not answer or refuses."""


class Outage(Unreachable):
    """It does not answer now, or says that it cannot at present: :mod:`erasediff.retries` tries the same call again."""


PASSING_STATUS = frozenset({429, 500, 502, 503, 504})
"""The answers over HTTP that say the same."""


class AwaitingApproval(EraseDiffError):
    """The model needs approvals first; the same command continues once it has them."""

    exit_code = ExitCode.AWAITING_APPROVAL


class NotPassed(EraseDiffError):
    """A model did not pass its gate; the exit code is that of the verdict."""

    def __init__(self, message: str, exit_code: ExitCode) -> None:
        """Take the message and the exit code of FAIL or INCONCLUSIVE."""
        super().__init__(message)
        self.exit_code = exit_code


class RolledBack(EraseDiffError):
    """A new version did not come up; the previous one goes on serving."""

    exit_code = ExitCode.ROLLED_BACK


class PurgeUnfinished(EraseDiffError):
    """Something that was to be purged may still exist; the same command continues the purge."""

    exit_code = ExitCode.UNFINISHED


class Interrupted(EraseDiffError):
    """The user stopped the command with Ctrl-C."""

    exit_code = ExitCode.INTERRUPTED


class NonFinite(EraseDiffError):
    """A loss or a gradient is NaN or infinite, so training stops."""


_DISK_SENTENCES = {
    errno.ENOSPC: "no space is left on the device that holds {path}: free some space and run the same command again.",
    errno.EDQUOT: "the disk quota for {path} is used up: free some space and run the same command again.",
    errno.EACCES: "there is no permission to write {path}: choose another --workdir or change its permissions.",
    errno.EPERM: "there is no permission to write {path}: choose another --workdir or change its permissions.",
    errno.EROFS: "{path} lies on a read-only file system: choose another --workdir.",
}


_OF_EXTRAS = {
    "cpu": (
        *("PIL", "accelerate", "cronsim", "diffusers", "dvc", "dvc_objects", "google", "huggingface_hub", "jinja2", "kfp", "kubernetes"),
        *("matplotlib", "mlflow", "numpy", "onnx", "onnxruntime", "onnxscript", "pandas", "pyarrow", "requests", "ruamel"),
        *("safetensors", "scipy", "sklearn", "sqlalchemy", "tenacity", "torch", "transformers", "urllib3", "yaml"),
    ),
    "s3": ("boto3", "botocore"),
    "nudenet": ("nudenet",),
    "inception": ("torch_fidelity",),
}
"""The modules that `erasediff verify` does not need, by the extra that installs them."""


def explain_missing_module(error: ModuleNotFoundError) -> EraseDiffError | None:
    """Say which extra installs a missing module; ``None`` if none does."""
    module = (error.name or "").partition(".")[0]
    extra = next((name for name, modules in _OF_EXTRAS.items() if module in modules), None)
    if extra is None:
        return None
    what = {"cpu": "`pip install 'erasediff[cpu]'`, or [gpu] for CUDA"}.get(extra, f"`pip install 'erasediff[{extra}]'`")
    return BadInput(f"{module} is not installed, and this needs it: run {what}.")


def explain_os_error(error: Exception, path: object) -> EraseDiffError | None:
    """Turn a known operating-system error into a sentence; ``None`` for an unknown one.

    Libraries written in Rust, such as safetensors, raise errors of their own, which end with the number.
    """
    of_rust = re.search(r"\(os error (\d+)\)$", str(error))
    number = error.errno if isinstance(error, OSError) else int(of_rust[1]) if of_rust else None
    sentence = _DISK_SENTENCES.get(number or 0)
    return None if sentence is None else BadInput(sentence.format(path=path))
