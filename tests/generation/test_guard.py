"""The guard against repetition: stuck rows are resampled independently of the batch, with bounded retries."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from small_models import written_model

from coma_gen.generation import engine, guard
from coma_gen.generation.guard import find_loop_start
from coma_gen.generation.music_generator import MusicGenerator
from coma_gen.generation.sampling import SamplingParams
from coma_gen.generation.sampling_loop import sample_tokens
from coma_gen.generation.sequence import SequenceState

SCALE = [60, 62, 64, 65, 67, 69, 71, 72]
PLAIN = SamplingParams()


@pytest.fixture(scope="module", params=[None, 600], ids=["base tokens", "byte pairs"])
def untrained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> MusicGenerator:
    return MusicGenerator.load(written_model(tmp_path_factory.mktemp("model"), vocab_size=request.param))


def since(pitches: list[int], step: float) -> float | None:
    return find_loop_start(np.arange(len(pitches)) * step, np.array(pitches))


def test_a_stay_on_three_keys_by_hand() -> None:
    trill = [60, 62, 64, 62] * 4
    assert since([72, 71, *trill, 48], 0.3) == pytest.approx(2 * 0.3)  # 16 notes, 4.5 s
    assert since([72, 71, *trill, 48], 0.26) is None  # 3.9 s
    assert since([60, 62, 64, 62, 60, 62, 64, 62], 0.6) == 0  # 8 notes, 4.2 s
    assert since([60, 62, 64, 62, 60, 62, 64], 0.7) is None  # 7 notes are slow music
    assert since([], 0.1) is None


def test_a_repeated_figure_by_hand() -> None:
    five, four = SCALE[:4] * 5, SCALE[:4] * 4
    assert since([50, *five, 50], 0.25) == pytest.approx(0.25)  # 20 notes, 4.75 s
    assert since([50, *five, 50], 0.2) is None  # 3.8 s
    assert since([50, *four, 50], 0.5) is None  # four times only
    assert since([*SCALE, *SCALE[:4], *five], 0.25) == pytest.approx(8 * 0.25)
    assert since([note + 12 * number for number, note in enumerate(SCALE)] * 5, 0.2) == 0


def drawn(composer: MusicGenerator, indices: list[int], max_rewinds: int = 3) -> list[SequenceState]:
    bos = composer.tokenizer.bos_id
    sequences = [SequenceState([bos], index=index, until=20.0) for index in indices]
    settings = {"sampling": PLAIN, "seed": 5, "max_tokens": 150, "max_empty_bars": 2}
    sample_tokens(
        composer.loaded.model, composer.grammar, sequences, max_rewinds=max_rewinds, desc=None, **settings
    )  # type: ignore[arg-type]
    return sequences


def told(sequences: list[SequenceState]) -> list[tuple[list[int], int, int]]:
    return [(each.tokens.tolist(), each.rewinds, each.redrawn) for each in sequences]


def test_what_becomes_of_a_stuck_sequence_depends_on_itself_alone(
    untrained: MusicGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def often(onset: np.ndarray, pitch: np.ndarray) -> float | None:
        return float(onset[len(onset) // 2]) if len(pitch) and pitch.sum() % 3 == 0 else None

    free = drawn(untrained, [0, 1, 2, 3, 4, 5])
    assert all(sequence.rewinds == sequence.redrawn == 0 for sequence in free)
    monkeypatch.setattr(guard, "find_loop_start", often)
    together = drawn(untrained, [0, 1, 2, 3, 4, 5])
    assert sum(sequence.rewinds for sequence in together) > 3
    assert told(together) == told(drawn(untrained, [0, 1, 2, 3, 4, 5]))
    assert told(together) == [told(drawn(untrained, [index]))[0] for index in range(6)]
    assert told(drawn(untrained, [0, 1, 2, 3, 4, 5], max_rewinds=0)) == told(free)
    for sequence, unwatched in zip(together, free, strict=True):
        assert untrained.grammar.invalid(sequence.tokens.tolist()) == 0
        assert len(sequence.illegal) == len(sequence.tokens)
        assert (sequence.rewinds == 0) == (sequence.tokens == unwatched.tokens)
        assert sequence.reached or sequence.new_tokens == 150
    monkeypatch.setattr(engine, "_compute_receptive_field", lambda _params: sys.maxsize)
    assert told(drawn(untrained, [0, 1, 2, 3, 4, 5])) == told(together), "no more was read than is seen"


def test_who_is_always_stuck_ends_all_the_same(
    untrained: MusicGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "find_loop_start", lambda onset, _pitch: 0.0 if len(onset) else None)
    for sequence in drawn(untrained, [0, 1], max_rewinds=2):
        assert sequence.reached or sequence.new_tokens == 150
        assert 0 < sequence.rewinds <= 2 * 20 and sequence.redrawn > 0


def test_random_numbers_go_on_where_they_were() -> None:
    def numbers(rewind_after: int | None, count: int) -> list[float]:
        sequence, found = SequenceState([1], index=0, until=9.0), []
        for step in range(count):
            if step == rewind_after:
                sequence.rewind(2)
            found.append(sequence.uniform(0))
            sequence.add(7, in_prefix=False, illegal=0.0, seconds=0.0)
        return found

    assert numbers(None, 300) == numbers(255, 300) == numbers(256, 300)
