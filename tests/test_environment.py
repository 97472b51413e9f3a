"""A process keeps the memory that it frees: a step must not pay for the same pages again and again."""

import json
import subprocess
import sys

import pytest

from erasediff import environment
from erasediff.cli import main

PROGRAM = """
import resource
from erasediff import environment
import numpy
{prelude}
def step():
    return [numpy.ones(2**18) for _ in range(40)]
step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
PAGES = 40 * 2**21 // 4096  # of one such step


def faults(prelude: str, **variables: str) -> int:
    environment = {"OPENBLAS_NUM_THREADS": "1", **variables}
    done = subprocess.run([sys.executable, "-c", PROGRAM.format(prelude=prelude)], env=environment, capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is glibc's; run on Linux")
class TestFreedMemory:
    def test_is_kept_by_a_process_that_settled(self):
        assert faults("environment.configure_process()") < PAGES

    def test_is_kept_by_its_children(self):
        assert faults("", **environment_of_children()) < PAGES

    def test_is_given_back_otherwise(self):
        """Control: left alone, this C library faults the pages in again at every step."""
        assert faults("") > 8 * PAGES

    def test_is_given_back_where_the_environment_says_so(self):
        assert faults("environment.configure_process()", MALLOC_TRIM_THRESHOLD_="1", MALLOC_MMAP_THRESHOLD_="65536") > 8 * PAGES


def environment_of_children() -> dict[str, str]:
    """What ``configure_process`` leaves in the environment, seen from a process of its own."""
    code = "import json, os; from erasediff import environment; environment.configure_process(); print(json.dumps(dict(os.environ)))"
    done = subprocess.run([sys.executable, "-c", code], env={}, capture_output=True, text=True, check=True)
    return {name: value for name, value in json.loads(done.stdout).items() if name.startswith("MALLOC_")}


def test_in_a_pod_the_last_sentence_is_the_containers_termination_message(tmp_path, monkeypatch, capsys):
    """What Kubernetes shows of a pod that has failed. Control: where the kubelet mounts no such file, none is made."""
    log = tmp_path / "termination-log"
    monkeypatch.setattr(environment, "TERMINATION_LOG", log)
    assert main(["run", "--workdir", str(tmp_path / "work"), "--forget-label", "eleven"]) == 2
    assert not log.exists()
    log.touch()
    assert main(["run", "--workdir", str(tmp_path / "work"), "--forget-label", "eleven"]) == 2
    sentence = capsys.readouterr().err.splitlines()[-1]
    assert sentence.startswith("erasediff: class eleven is not in dataset digits")
    assert log.read_text() == sentence
