"""Gives the tests of training the tiny run of trainer.py."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch


@pytest.fixture(scope="session")
def trainer() -> ModuleType:
    """The module trainer.py, which other tests start as a program."""
    spec = importlib.util.spec_from_file_location("trainer", Path(__file__).with_name("trainer.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def uninterrupted(trainer: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The digest of the tiny run when nothing goes wrong."""
    result: str = trainer.digest(trainer.train(tmp_path_factory.mktemp("uninterrupted")))
    return result
