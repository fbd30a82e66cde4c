"""Music by an n-gram model, the baseline of listening tests.

It is sampled with the grammar and the sampling parameters of a model, so that only the probabilities differ.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from coma_gen.evaluation.kneser_ney import KneserNey
from coma_gen.generation.constraints import GrammarConstraint
from coma_gen.generation.request import MAX_EMPTY_BARS
from coma_gen.generation.sampling import SamplingParams, probabilities, sample_from
from coma_gen.generation.sequence import SequenceState
from coma_gen.generation.splice import decode_continuation, drop_overlaps
from coma_gen.generation.token_healing import split_prompt
from coma_gen.midi.notes import Notes
from coma_gen.tokenizer.grammar import Grammar
from coma_gen.tokenizer.remi import Tokenizer


def next_probabilities(
    model: KneserNey, context: list[int], candidates: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Returns the probability (C,) of each candidate after a context of at least one token.

    The model scores whole sequences, so all pairs of context and candidate are concatenated into one.
    """
    rows = np.empty((len(candidates), len(context) + 1), np.uint16)
    rows[:, :-1], rows[:, -1] = context, candidates
    return model.probabilities(rows.ravel())[len(context) - 1 :: len(context) + 1]


def continue_by_ngrams(
    model: KneserNey,
    tokenizer: Tokenizer,
    prompt: Notes,
    *,
    order: int,
    seconds: float,
    sampling: SamplingParams,
    seed: int,
    number: int,
    max_tokens: int,
) -> Notes:
    """Continues a prompt with an n-gram model; times are relative to the prompt's last onset.

    Args:
        model: Model of the tokenizer's ids.
        tokenizer: Tokenizer of the prompt.
        prompt: Notes with a first onset at 0 s.
        order: Tokens of the longest gram.
        seconds: Length of the new music.
        sampling: Sampling parameters.
        seed: Seed of the random numbers.
        number: Number of the piece, which selects its random numbers.
        max_tokens: Maximum number of new tokens.
    """
    vocabulary = tokenizer.vocabulary
    ids, prefix = split_prompt(tokenizer.encode(prompt), vocabulary)
    until = prompt.end_of_onsets + seconds
    sequence = SequenceState([tokenizer.bos_id, *ids], index=number, until=until, prefix=prefix)
    constraint = GrammarConstraint(Grammar.of(vocabulary), [sequence], MAX_EMPTY_BARS)
    parts = sampling.parts(vocabulary)
    while not sequence.reached and sequence.new_tokens < max_tokens:
        playable = constraint.playable(constraint.legal())
        candidates = np.flatnonzero(playable[0])
        scores = np.full(playable.shape, -np.inf)
        scores[0, candidates] = np.log(next_probabilities(model, sequence.tail(order - 1), candidates))
        token = sample_from(probabilities(scores, playable, sampling, parts), [sequence.uniform(seed)])
        in_prefix = constraint.advance(token)[0]
        sequence.add(int(token[0]), in_prefix=in_prefix, illegal=0.0, seconds=float(constraint.seconds()[0]))
    prompt_ids = np.concatenate([tokenizer.base_ids(ids), np.array(prefix, np.uint16)])
    new_ids = tokenizer.base_ids(np.array(sequence.tokens, np.uint16))[len(prefix) :]
    splice = prompt.end_of_onsets
    decoded = decode_continuation(tokenizer, prompt_ids, new_ids).until(until)
    new = drop_overlaps(decoded, prompt, 1 / vocabulary.positions_per_second)
    return replace(new, pedal=np.maximum(new.pedal, splice)).shifted(-splice)
