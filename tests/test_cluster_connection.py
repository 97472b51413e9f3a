"""The lie: 'it was done in the cluster', of a cluster or a namespace that nobody meant."""

from pathlib import Path

import pytest
import yaml

from erasediff.cluster.connection import configuration
from erasediff.errors import BadInput


def kubeconfig(path: Path, server: str, **context: str) -> Path:
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "a",
        "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a", **context}}, {"name": "b", "context": {"cluster": "a", "user": "a"}}],
        "users": [{"name": "a", "user": {"token": "secret-token"}}],
        "clusters": [{"name": "a", "cluster": {"server": server}}],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, outside a cluster."""
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_the_file_that_is_named_comes_before_the_one_at_home(home, tmp_path, monkeypatch):
    kubeconfig(home / ".kube/config", "https://home.example", namespace="at-home")
    settings, namespace = configuration()
    assert (settings.host, namespace) == ("https://home.example", "at-home")
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path / "named", "https://named.example", namespace="erasure")))
    settings, namespace = configuration()
    assert (settings.host, namespace) == ("https://named.example", "erasure")


def test_a_context_that_names_no_namespace_means_the_default_one(home, tmp_path, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path / "named", "https://named.example")))
    assert configuration()[1] == "default"


def test_a_file_that_is_named_and_missing_is_not_passed_over(home, monkeypatch):
    kubeconfig(home / ".kube/config", "https://home.example")
    configuration()  # control: there would be another
    monkeypatch.setenv("KUBECONFIG", "/nowhere")
    with pytest.raises(BadInput, match="no cluster is configured"):
        configuration()


@pytest.mark.parametrize("text", ["", "a: [", "[]", "a", "kind: Config\n"], ids=["empty", "no YAML", "a list", "a word", "no context"])
def test_what_cannot_be_read_is_one_sentence_without_its_content(home, tmp_path, monkeypatch, text):
    (tmp_path / "named").write_text(text + "# secret-token\n")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "named"))
    with pytest.raises(BadInput, match="no cluster is configured") as refused:
        configuration()
    assert "\n" not in str(refused.value)
    assert "secret-token" not in str(refused.value)


def test_with_neither_file_nor_pod_the_sentence_says_what_to_set(home):
    with pytest.raises(BadInput, match="set KUBECONFIG, or run this in a pod with a service account"):
        configuration()
