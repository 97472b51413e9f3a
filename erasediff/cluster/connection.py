"""Which cluster this process uses."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from erasediff.errors import BadInput

_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


def configuration() -> tuple[Any, str]:
    """The client's settings and the namespace: from ``KUBECONFIG``, ``~/.kube/config``, or the pod that this runs in.

    Raises:
        BadInput: there is none of them, or it cannot be read.
    """
    import yaml  # PyYAML, by which the client reads a kubeconfig
    from kubernetes import client, config
    from kubernetes.config import ConfigException
    from urllib3.util import Retry

    settings = client.Configuration()
    settings.retries = Retry(total=2, backoff_factor=0.2, redirect=0)
    path = os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")
    try:
        if os.environ.get("KUBECONFIG") or Path(path).is_file():
            config.load_kube_config(config_file=path, client_configuration=settings)
            _, context = config.list_kube_config_contexts(config_file=path)
            return settings, str(context["context"].get("namespace") or "default")
        config.load_incluster_config(client_configuration=settings)
        return settings, _NAMESPACE_FILE.read_text().strip()
    except (ConfigException, OSError, ValueError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0][:200]
    except (yaml.YAMLError, AttributeError, TypeError):  # their messages quote the file
        reason = "the kubeconfig is not one"
    raise BadInput(f"no cluster is configured ({reason}): set KUBECONFIG, or run this in a pod with a service account.")
