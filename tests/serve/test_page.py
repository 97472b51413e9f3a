"""The lie: 'the page shows what is served', of one that nobody opened."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serve.browser import CHROMIUM, Browser, browser
from tests.serve.conftest import Running, serving

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed: `apt-get install chromium`, then run this file again")


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rules") / "rules.yaml"
    path.write_text("suppress: ['5']\n")
    return path


@pytest.fixture(scope="module")
def server(exported: Path, rules: Path) -> Iterator[Running]:
    with serving("--model", exported, "--rules", rules) as running:
        yield running


@pytest.fixture
def page(server: Running, tmp_path: Path) -> Iterator[Browser]:
    with browser(tmp_path) as opened:
        opened.open(server.address)
        opened.wait("document.querySelectorAll('#labels button').length === 10")
        yield opened
        assert opened.errors == []


def click(label: int) -> str:
    return f"document.querySelectorAll('#labels button')[{label}].click()"


def test_it_shows_what_serves_and_draws_what_is_asked_for(page: Browser, server: Running) -> None:
    served = server.ask("/served").content
    text = page.run("document.body.innerText")
    assert served["onnx_sha256"] in text
    assert "Verdict PASS" in text
    assert page.run("document.querySelectorAll('#labels button')[8].textContent") == "8forgotten"
    page.run(click(3))
    page.wait("document.querySelectorAll('canvas').length === 8")
    pixels = page.run("[...document.querySelectorAll('canvas')[1].getContext('2d').getImageData(0, 0, 8, 8).data].filter((_, i) => i % 4 === 0)")
    drawn = server.infer(label="3", num_images=8).content["outputs"][0]["data"]
    assert pixels == drawn[64:128], "the second image, pixel by pixel"
    assert pixels != drawn[:64], "control: the first is another"


def test_a_suppressed_label_cannot_be_chosen_from_the_moment_it_is_suppressed(page: Browser, rules: Path) -> None:
    assert page.run("document.querySelectorAll('#labels button')[5].disabled")
    page.run(click(3))
    page.wait("document.querySelectorAll('canvas').length === 8")
    rules.write_text("suppress: ['3', '5']\n")
    page.wait("document.querySelectorAll('#labels button')[3].disabled")
    assert page.run("document.querySelectorAll('canvas').length") == 0, "what it drew is gone"
    rules.write_text("suppress: ['5']\n")
    page.wait("!document.querySelectorAll('#labels button')[3].disabled")


def test_a_refusal_is_said(page: Browser, rules: Path) -> None:
    page.run("document.querySelector('#count').value = 99")
    page.run(click(4))
    page.wait("document.querySelector('#message').textContent.includes('ask for 1 to 16')")
    rules.write_text("minimum_epoch: 9\n")
    page.wait("document.querySelector('#state').textContent.includes('below the minimum')")
    rules.write_text("suppress: ['5']\n")
    page.wait("document.querySelector('#state').textContent.includes('Verdict PASS')")
