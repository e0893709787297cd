"""Fixtures that several modules share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("unhurried", deadline=None)  # a busy machine is nobody's failure
settings.load_profile("unhurried")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One store for all runs of a module."""
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def torch_left_as_found() -> Iterator[None]:
    """For modules that execute runs in this process."""
    from tests.finetuning import torch_as_found  # most tests do without torch

    with torch_as_found():
        yield
