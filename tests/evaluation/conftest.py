"""One small corpus for all tests of figures."""

from __future__ import annotations

import pytest
from small_corpus import Made, make


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A corpus of nine short performances, tokens and a model; to be read only."""
    return make(tmp_path_factory.mktemp("made"))
