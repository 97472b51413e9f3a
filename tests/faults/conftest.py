"""Tests that break things: they take minutes each, so `make test-faults` runs them and `make test` does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.conftest import erasediff

__all__ = ["erasediff"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.faults)
            item.add_marker(pytest.mark.timeout(7200))
