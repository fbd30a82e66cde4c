"""A small untrained model and the tokenizer that goes with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from small_models import SCALE, written_model

from coma_gen.generation.music_generator import MusicGenerator
from coma_gen.midi.notes import Notes


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written_model(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="session")
def composer(model_folder: Path) -> MusicGenerator:
    return MusicGenerator.load(model_folder)


@pytest.fixture
def model() -> Callable[..., Path]:
    return written_model


@pytest.fixture
def scale() -> Notes:
    return SCALE
