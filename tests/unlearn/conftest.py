"""A tiny erasure of random images: the same code as in a subprocess of test_resume.py."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

from erasediff.unlearn.trainer import Erasure


@pytest.fixture(scope="session")
def program() -> ModuleType:
    """The module resumable.py."""
    spec = spec_from_file_location("resumable", Path(__file__).with_name("resumable.py"))
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def make_erasure(program: ModuleType) -> Callable[..., Erasure]:
    """Build an erasure before its first step: `make_erasure(seed=0, earlier=(), **erase settings)`."""
    return program.make_erasure
