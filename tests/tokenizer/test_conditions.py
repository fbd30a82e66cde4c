"""Measures of bars against hand-computed values; blocks, cut windows and byte pairs."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_music import BAR, BOS, EOS, PAD, bar, note, piece, vocabulary

from coma_gen.config.schema import CONDITION_BINS, CONDITIONS
from coma_gen.tokenizer.conditions import EDGES, ConditionTables, compute_values

TABLES = ConditionTables.from_vocabulary(vocabulary(), CONDITIONS)
DENSE, SPARSE = bar(9), bar(3, pitch=61, velocity=90, positions=4)
OF_DENSE = [6, 4, 7, 5]
"""9 notes in 2 s are 4.5 a second; velocity 40; pitch 60; 9 x 1 of 4 positions are 2.25 at once."""
OF_SPARSE = [1, 14, 7, 6]
"""1.5 a second; velocity 90; pitch 61; 3 x 4 of 4 positions are 3 at once."""
UNTOLD = [0, 0, 0, 0]


def test_the_measures_of_some_bars_by_hand() -> None:
    sums = np.array([[9, 360, 540, 9], [3, 270, 183, 12], [0, 0, 0, 0]])
    found = compute_values(sums, np.array([4, 4, 4]), vocabulary())
    np.testing.assert_allclose(found["density"], [4.5, 1.5, 0.0])
    np.testing.assert_allclose(found["loudness"], [40, 90, np.nan])
    np.testing.assert_allclose(found["register"], [60, 61, np.nan])
    np.testing.assert_allclose(found["polyphony"], [2.25, 3.0, 0.0])


def test_a_block_is_four_bars_and_carries_its_own_bins() -> None:
    told = TABLES.compute_bins(piece(*[DENSE] * 4, *[SPARSE] * 4, DENSE))
    first, second = 1 + 4 * len(DENSE), 4 * len(SPARSE)
    assert (told[:first] == OF_DENSE).all(), "BOS and the first four bars"
    assert (told[first : first + second] == OF_SPARSE).all()
    assert (told[first + second :] == UNTOLD).all(), "one bar by itself"


def test_a_block_is_the_mean_of_its_bars() -> None:
    told = TABLES.compute_bins(piece(DENSE, DENSE, SPARSE, SPARSE))
    # 24 notes in 8 s; (18 x 40 + 6 x 90) / 24 = 52.5; 60.25; (18 + 24) / 16 = 2.625
    assert (told == [4, 7, 7, 6]).all()


def test_what_a_window_cuts_is_told_by_its_whole_bars() -> None:
    mid = [*note(velocity=90) * 2, *DENSE, *DENSE, *DENSE[:5]]
    assert (TABLES.compute_bins(mid) == OF_DENSE).all(), (
        "neither the first notes nor the last bar are counted"
    )
    assert (TABLES.compute_bins([*note(), *DENSE, *DENSE]) == UNTOLD).all(), "the second bar may go on"
    assert (TABLES.compute_bins([*note(), *DENSE, *DENSE, EOS, PAD]) == OF_DENSE).all(), "it is over"
    assert (TABLES.compute_bins(note() * 3) == UNTOLD).all(), "no bar line at all"
    cut = [BOS, *DENSE * 4, *SPARSE * 2, *SPARSE[:6]]
    assert (TABLES.compute_bins(cut)[-1] == OF_SPARSE).all(), "two whole bars of the last block"


def test_silence_has_a_density_but_no_loudness() -> None:
    assert (TABLES.compute_bins(piece([BAR], [BAR], [BAR], [BAR])) == [1, 0, 0, 1]).all()


def test_a_learned_token_counts_as_its_parts() -> None:
    whole = tuple(DENSE)
    tables = ConditionTables.from_vocabulary(vocabulary(whole, tuple(note())), CONDITIONS)
    told = tables.compute_bins([BOS, 12, 12, 12, BAR, *[13] * 9, EOS])
    assert (told == OF_DENSE).all() and len(told) == 15


def test_a_model_has_the_conditions_that_it_names_in_its_order() -> None:
    tables = ConditionTables.from_vocabulary(vocabulary(), ("register", "density"))
    assert (tables.compute_bins(piece(DENSE, DENSE)) == [7, 6]).all()


@pytest.mark.parametrize("name", CONDITIONS)
def test_the_bins_are_in_order_and_all_there(name: str) -> None:
    assert len(EDGES[name]) == CONDITION_BINS - 1 and (np.diff(EDGES[name]) > 0).all()
    assert TABLES.find_bin(name, 0) == 1 and TABLES.find_bin(name, 1e3) == CONDITION_BINS
    assert TABLES.find_bin(name, float(EDGES[name][4])) == 6, "an edge belongs to the bin above"
