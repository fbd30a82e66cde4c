"""Sampled sequences are valid for any batch size, with and without byte pairs."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from small_models import written_model

from coma_gen.generation import engine
from coma_gen.generation.generate import generate_batch
from coma_gen.generation.music_generator import MusicGenerator
from coma_gen.generation.sampling import SamplingParams, probabilities, sample_from
from coma_gen.generation.sampling_loop import sample_tokens
from coma_gen.generation.sequence import SequenceState
from coma_gen.midi.notes import Notes

PLAIN = SamplingParams()


@pytest.fixture(scope="module", params=[None, 600], ids=["base tokens", "byte pairs"])
def untrained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> MusicGenerator:
    return MusicGenerator.load(written_model(tmp_path_factory.mktemp("model"), vocab_size=request.param))


def grown(composer: MusicGenerator, count: int, **changed: object) -> list[SequenceState]:
    bos = composer.tokenizer.bos_id
    sequences = [SequenceState([bos], index=index, until=1e9) for index in range(count)]
    settings = {"sampling": PLAIN, "seed": 0, "max_tokens": 40, "max_empty_bars": 2} | changed
    sample_tokens(composer.loaded.model, composer.grammar, sequences, **settings)  # type: ignore[arg-type]
    return sequences


def longest_silence(composer: MusicGenerator, tokens: list[int]) -> int:
    """Empty bars in a row, counted from the base tokens alone."""
    types = [composer.tokenizer.vocabulary.base_types[base] for base in composer.tokenizer.base_ids(tokens)]
    longest = run = 0
    for kind, following in pairwise(types):
        run = run + 1 if kind == following == "Bar" else 0
        longest = max(longest, run)
    return longest


def test_no_transition_of_a_thousand_sequences_is_invalid(untrained: MusicGenerator) -> None:
    grammar = untrained.grammar
    sequences = grown(untrained, 1_000)
    assert sum(grammar.invalid(sequence.tokens.tolist()) for sequence in sequences) == 0
    assert all(sequence.new_tokens == len(sequence.tokens) == 40 for sequence in sequences)
    seconds = [grammar.seconds(sequence.tokens.tolist()) for sequence in sequences]
    assert all((np.diff(times) >= 0).all() for times in seconds)
    assert [sequence.seconds for sequence in sequences] == [times[-1] for times in seconds]
    assert max(longest_silence(untrained, sequence.tokens.tolist()) for sequence in sequences) <= 2
    assert sum(len(untrained.tokenizer.decode(sequence.tokens)) for sequence in sequences) > 5_000


class Silent(torch.nn.Module):
    """A model that wants nothing but empty bars."""

    def __init__(self, composer: MusicGenerator) -> None:
        super().__init__()
        self.anchor = torch.nn.Parameter(torch.zeros(1))
        self.params = composer.loaded.model.params
        self.init_cache = composer.loaded.model.init_cache
        self.wanted = torch.from_numpy(composer.grammar.is_bar) * 30.0

    def forward(self, input_ids: torch.Tensor, state: object, _conditions: None) -> torch.Tensor:
        return self.wanted.expand(*input_ids.shape, -1)


@pytest.mark.parametrize("bound", [0, 1, 3])
def test_empty_bars_are_bounded(
    untrained: MusicGenerator, bound: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "TokenDecoder", lambda model: lambda *given: model(*given)[:, -1])
    silent = SimpleNamespace(model=Silent(untrained))
    quiet = MusicGenerator(silent, untrained.tokenizer, untrained.grammar)  # type: ignore[arg-type]
    for sequence in grown(quiet, 2, max_empty_bars=bound):
        assert longest_silence(untrained, sequence.tokens.tolist()) == bound
        assert untrained.grammar.invalid(sequence.tokens.tolist()) == 0


def test_a_row_is_drawn_as_it_would_be_alone() -> None:
    rng = np.random.default_rng(0)
    logits, uniform = rng.normal(0, 3, (16, 50)), rng.random(16)
    allowed = rng.random((16, 50)) < 0.5
    allowed[:, 7] = True
    for sampling in (
        PLAIN,
        SamplingParams(0.7, 9, 0.8, 0.05),
        SamplingParams(0),
        SamplingParams(top_p=0.3),
        SamplingParams(top_k=3),
    ):
        for parts in (None, [np.arange(3, 20), np.arange(20, 41)]):
            together = probabilities(logits, allowed, sampling, parts)
            alone = [
                probabilities(row, legal, sampling, parts) for row, legal in zip(logits, allowed, strict=True)
            ]
            np.testing.assert_array_equal(together, alone)
        tokens = sample_from(together, uniform)
        assert tokens.tolist() == [
            int(sample_from(row, each)) for row, each in zip(alone, uniform, strict=True)
        ]


def test_a_long_prompt_is_read_in_chunks_and_a_shared_one_once(
    untrained: MusicGenerator, scale: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pieces(prompts: list[Notes | None]) -> list[Notes]:
        settings = {"seconds": 4.0, "sampling": PLAIN, "seed": 3, "max_tokens": 60, "max_empty_bars": 4}
        return [piece.notes for piece in generate_batch(untrained, prompts, **settings)]  # type: ignore[arg-type]

    other = scale.until(2.0)
    whole = pieces([scale, other, scale, None])
    monkeypatch.setattr(engine, "PREFILL_CHUNK", 7)
    assert pieces([scale, other, scale, None]) == whole
    assert pieces([scale, other, scale.shifted(0.0), None]) == whole
    assert whole[0] != whole[2]


def test_rows_that_have_finished_leave_the_others_as_they_are(untrained: MusicGenerator) -> None:
    bos = untrained.tokenizer.bos_id
    sequences = [
        SequenceState([bos], index=index, until=until) for index, until in enumerate((1.0, 9.0, 3.0))
    ]
    settings = {"sampling": PLAIN, "seed": 0, "max_tokens": 400, "max_empty_bars": 2}
    sample_tokens(untrained.loaded.model, untrained.grammar, sequences, **settings)  # type: ignore[arg-type]
    for sequence in sequences:
        assert sequence.reached == (sequence.seconds >= sequence.until)
        assert sequence.reached or sequence.new_tokens == 400
        before = untrained.grammar.seconds(sequence.tokens[:-1].tolist())
        assert before.max(initial=0) < sequence.until
    assert sequences[0].reached


def test_a_learned_position_embedding_is_primed_anew_with_the_newest_tokens() -> None:
    sequence = SequenceState([1, 2, 3], index=0, until=9.0)
    assert sequence.tail(2) == [2, 3]
    for token in (4, 5, 6):
        sequence.add(token, in_prefix=False, illegal=0.0, seconds=0.0)
    assert [sequence.tail(count) for count in (2, 3, 4, 6, 9)] == [
        [5, 6],
        [4, 5, 6],
        [3, 4, 5, 6],
        [1, 2, 3, 4, 5, 6],
        [1, 2, 3, 4, 5, 6],
    ]


def test_the_progress_bar_counts_seconds_of_music(
    untrained: MusicGenerator, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    sequences = [SequenceState([untrained.tokenizer.bos_id], index=0, until=4.0)]
    settings = {"sampling": PLAIN, "seed": 0, "max_tokens": 4000, "max_empty_bars": 2}
    sample_tokens(untrained.loaded.model, untrained.grammar, sequences, **settings)  # type: ignore[arg-type]
    assert "4/4" in capfd.readouterr().err


def test_the_bound_holds_for_tokens_of_each_piece(
    model: Callable[..., Path], untrained: MusicGenerator
) -> None:
    assert [sequence.new_tokens for sequence in grown(untrained, 3, max_tokens=1)] == [1, 1, 1]
