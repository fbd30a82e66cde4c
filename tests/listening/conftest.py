"""One small corpus, and a sealed test of three trials."""

from __future__ import annotations

import pytest
from small_corpus import Made, make

from coma_gen.listening.answer_key import AnswerKey


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A corpus of nine short performances, tokens and a model; to be read only."""
    return make(tmp_path_factory.mktemp("made"))


@pytest.fixture
def sealed() -> AnswerKey:
    trials = (("real", "model"), ("model", "real"), ("5-gram", "real"))
    return AnswerKey(sources=("model", "real", "5-gram"), trials=trials, about={"seed": 0})
