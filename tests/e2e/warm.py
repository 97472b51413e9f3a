"""``erasediff``, ``dvc`` and ``python`` without their imports, which cost a command six seconds: a process that has made them forks a child for each.

A child is a process of its own with the folder, the environment, the output and the exit code that the command would have.
``python -P warm.py serve SOCKET`` listens; ``python -IS warm.py ask SOCKET PROGRAM …`` is one command.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import json
import os
import runpy
import signal
import socket
import struct
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

LAZY = (
    *("boto3", "dvc.cli", "dvc.repo", "dvc_s3", "kfp.compiler", "kfp.dsl.executor", "kfp.local", "matplotlib.pyplot", "mlflow", "onnx"),
    *("mlflow.store.model_registry.sqlalchemy_store", "mlflow.store.tracking.sqlalchemy_store", "onnxruntime", "onnxscript"),
    *("sklearn.datasets", "torch.onnx._internal.exporter._core"),
)
"""What a command imports when it comes to it."""


def serve(address: str) -> None:
    """Fork for every connection; a child ends as a program does."""
    import importlib
    import pkgutil

    import erasediff

    for found in pkgutil.walk_packages(erasediff.__path__, "erasediff."):
        if not found.name.startswith(("erasediff.serve", "erasediff.__main__")):
            importlib.import_module(found.name)
    for name in LAZY:
        importlib.import_module(name)
    import torch

    from tests.migrated import make_empty_database, migrated
    from tests.unsynced import unsynced

    empty = Path(address).with_name("mlflow.db")
    make_empty_database(empty)

    torch.set_num_threads(1)
    gc.freeze()  # else every collection in a child looks at all modules, and copies their pages
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen()
    signal.signal(signal.SIGCHLD, lambda *_: _reap())
    with unsynced(), migrated(lambda: empty):
        while True:
            connection, _ = listener.accept()
            if os.fork() == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                listener.close()
                _run(connection)
            connection.close()


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _run(connection: socket.socket) -> None:
    header, given, _, _ = socket.recv_fds(connection, 8, 2)
    (length,) = struct.unpack("!q", header)
    text = bytearray()
    while len(text) < length:
        text += connection.recv(length - len(text))
    asked = json.loads(text)
    with open(os.devnull) as nothing:  # noqa: PTH123
        os.dup2(nothing.fileno(), 0)
    for descriptor, wanted in zip(given, (1, 2), strict=True):
        os.dup2(descriptor, wanted)
        os.close(descriptor)
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    import tempfile

    tempfile.tempdir = None
    code = _main(*asked["command"])
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    connection.sendall(struct.pack("!q", int(code or 0)))
    os._exit(0)  # whoever asked waits until this process has ended; to take all modules down by the book takes three seconds


def _main(program: str, *arguments: str) -> int | None:
    sys.argv = [program, *arguments]
    if Path(program).name == "python":
        return _python(program, *arguments)
    if program == "dvc":
        from dvc.cli import main
    else:
        from erasediff.cli import main
    return main(list(arguments))


def _python(program: str, *arguments: str) -> int:
    """``python -m MODULE …``, ``python -c CODE …`` or ``python SCRIPT …``; whatever that starts by its own ``sys.executable`` is warm too."""
    sys.executable = program
    try:
        if arguments[0] == "-m":
            sys.argv = list(arguments[1:])
            runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        elif arguments[0] == "-c":
            sys.argv = ["-c", *arguments[2:]]
            exec(compile(arguments[1], "<string>", "exec"), {"__name__": "__main__"})
        else:
            sys.argv = list(arguments)
            runpy.run_path(arguments[0], run_name="__main__")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def ask(address: str, command: Sequence[str], environment: Mapping[str, str], folder: str, outputs: tuple[int, int], seconds: float) -> int:
    """Run one command to its end; its exit code, and minus SIGKILL where it was killed."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(seconds)
        connection.connect(address)
        text = json.dumps({"command": list(command), "environment": dict(environment), "folder": folder}).encode()
        socket.send_fds(connection, [struct.pack("!q", len(text))], list(outputs))
        connection.sendall(text)
        said = bytearray()
        while part := connection.recv(8):
            said += part
    return struct.unpack("!q", said)[0] if len(said) == 8 else -signal.SIGKILL


if __name__ == "__main__":
    what, address, *command = sys.argv[1:]
    if what == "serve":
        serve(address)
    sys.exit(ask(address, command, os.environ, os.getcwd(), (1, 2), 3600))  # noqa: PTH109
