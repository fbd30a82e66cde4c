"""Comparison of continuations with real ones: hand-computed figures, and the pages that are written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_corpus import Made, make

from benchmarks import continuations, samples
from benchmarks.comparison import DURATION, STAYS, BestOf, Comparison, MeasureValues
from benchmarks.continuations import find_distinguishing
from coma_gen.config.schema import SampleParams
from coma_gen.listening.passages import Passage
from coma_gen.midi.notes import Notes


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(tmp_path_factory.mktemp("made"))


def line(pitches: list[int], *, step: float = 0.5, length: float = 0.5, velocity: int = 60) -> Notes:
    onsets = [step * index for index in range(len(pitches))]
    return Notes.of(onsets, [length] * len(pitches), pitches, [velocity] * len(pitches))


WHITE, BLACK = [60, 62, 64, 65], [61, 63, 66, 68]


@pytest.fixture
def passages() -> list[Passage]:
    """Prompts in C: one with a real continuation in C, one with one on black keys."""
    one = Passage("one", 0.0, line(WHITE), line(WHITE * 4), line(WHITE * 4, velocity=90), 20.0)
    return [one, replace(one, midi_filename="two", real=line(BLACK * 4, velocity=72))]


def test_near_is_within_a_quarter_either_way() -> None:
    values = MeasureValues(np.array([8.0, 12.5, 7.9, 12.6, 0.0]), np.full(5, 10.0), np.full(5, 10.0))
    near, floor = values.find_near()
    assert near.tolist() == [True, True, False, False, False] and floor.all()


def test_figures_of_two_continuations(passages: list[Passage]) -> None:
    """The first new music is the real one, the second is twice as dense and stays on two keys for 7.5 s."""
    compared = Comparison.compute(passages, [line(WHITE * 4), line([60, 61] * 16, step=0.25, length=0.25)])
    measures = compared.measures
    assert measures["notes a second"].new.tolist() == [2.0, 4.0]
    assert measures["notes at once"].new.tolist() == pytest.approx([1.0, 1.0])
    assert measures[DURATION].new.tolist() == [0.5, 0.25]
    assert measures["notes in the prompt's scale"].real.tolist() == [1.0, 0.0]
    assert measures["notes in the prompt's scale"].new.tolist() == [1.0, 0.5]
    assert measures[STAYS].new.tolist() == [0.0, 1.0]
    assert measures[STAYS].real.tolist() == [0.0, 0.0]
    shares = {name: [flags.tolist() for flags in pair] for name, pair in compared.nearness.items()}
    assert shares["notes a second"] == [[True, False], [True, True]]
    assert shares["velocity"] == [[True, True], [False, True]]
    assert shares["all three"] == [[True, False], [False, True]]
    assert "| notes a second | 2 | 3 | 2 | 2 | -0.96 to +3 |" in compared.means()
    assert "| velocity | 2 | 100% ± 0% | 50% ± 69% |" in compared.shares()
    best = BestOf(4, Comparison.compute(passages, [line(WHITE * 4)] * 2))
    assert "| notes a second | 2 | 3 | 2 | 2 | 2 | -0.96 to +3 |" in compared.means(best)
    assert "| velocity | 2 | 100% ± 0% | 100% ± 0% | 50% ± 69% |" in compared.shares(best)
    assert "| samples | model | best of 4 | real |" in compared.means(best)
    met = {each.rule.split(":")[0]: each.met for each in compared.check_targets()}
    assert met["velocity within 25%"] and met["all three within 25%"]
    assert not met["notes a second within 25%"] and met["notes at once within 10% of real"]
    assert not met[STAYS]


def test_measures_that_distinguish_samples_from_real_music() -> None:
    def figures(overlap: float, divergence: float) -> dict[str, dict[str, float]]:
        return {
            "overlap": {"with_test": overlap, "of_real_low": 0.8},
            "divergence": {"from_test": divergence, "of_real_high": 0.1},
        }

    music = {"like": figures(0.8, 0.1), "thin": figures(0.7, 0.0), "odd": figures(0.9, 0.2)}
    assert find_distinguishing(music) == ["thin", "odd"]


def params(made: Made) -> SampleParams:
    changes = {"prompted": 3, "prompt_seconds": 2.0, "seconds": 3.0, "excerpts": 6, "max_tokens": 120}
    return made.params.sample.model_copy(update=changes)


def test_all_tables(made: Made) -> None:
    text = continuations.measure(
        made.model, made.shards, params(made), split="test", processes=1, against_train=True
    )
    assert (
        "| notes a second | 3 |" in text and "music measures distinguish samples from test excerpts" in text
    )
    assert "longest passage shared with train" in text and "0 break the grammar" in text
    beside = continuations.measure(
        made.model, made.shards, params(made), split="test", processes=1, against_train=False, draws=3
    )
    assert "| target | result | met | best of 3 | met |" in beside
    for title in ("| notes a second | 3 |", "| velocity | 3 |"):  # the first draws are those of one draw
        alone, many = ([row for row in page.splitlines() if row.startswith(title)] for page in (text, beside))
        assert [row.split(" | ")[2] for row in alone] == [row.split(" | ")[2] for row in many]


@pytest.mark.slow
def test_the_page_of_samples(made: Made, tmp_path: Path) -> None:
    folder = tmp_path / "samples"
    text = samples.write_pieces(made.model, made.shards, params(made), folder, count=2, processes=1)
    assert sorted(path.name for path in folder.iterdir()) == ["01.ogg", "01.png", "02.ogg", "02.png"]
    assert "### 1. Ada, Piece 0" in text and "(samples/01.ogg)" in text and "| real |" in text
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert samples.write_pieces(made.model, made.shards, params(made), folder, count=2, processes=1) == text
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == first
    page = samples.PAGE.read_text(encoding="utf-8")
    assert samples.insert_tables(page, {samples.SECTION: text, continuations.NAME: "|"}) != page
