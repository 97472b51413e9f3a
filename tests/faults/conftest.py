"""Tests that break things: they take minutes each, so `make test-faults` runs them and `make test` does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.conftest import erasediff_alone as erasediff
from tests.faults.life import Life

__all__ = ["erasediff"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.faults)
            item.add_marker(pytest.mark.timeout(7200))


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Life:
    """A request that waits before a trained base; trained once, for it takes a minute."""
    life = Life(tmp_path_factory.mktemp("life"))
    life.begin()
    return life


@pytest.fixture
def life(trained: Life) -> Life:
    """The same from its beginning, with nothing but files."""
    trained.environment = {}
    trained.again()
    return trained
