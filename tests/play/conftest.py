"""A small untrained model, and the app of the page around it."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_models import written_model

from coma_gen.generation.music_generator import MusicGenerator
from coma_gen.play.studio import Studio
from coma_gen.serving.schema import Limits


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def studio(model: Path) -> Studio:
    limits = Limits(max_seconds=20.0, max_tokens=4000, max_pieces=3, max_prompt_bytes=3000)
    return Studio(MusicGenerator.load(model), str(model), limits)
