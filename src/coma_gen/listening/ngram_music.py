"""Music by an n-gram model: the baseline that a listener can hear.

It draws under the grammar and with the filters of a model, so that only its probabilities differ from one.
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
    """(C,) the probability of each candidate after a context, one token at least.

    The model scores rows of tokens, and sees nothing before the context: one row holds the context and a
    candidate, again and again.
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
    choice: SamplingParams,
    seed: int,
    number: int,
    max_tokens: int,
) -> Notes:
    """What an n-gram model adds to a prompt, its times counted from the prompt's last onset.

    Args:
        model: of ids of the tokenizer.
        tokenizer: whose first note is where the grid begins.
        prompt: with a note at 0 s.
        order: tokens of the longest gram.
        seconds: of new music.
        choice: how tokens are chosen.
        seed: of the random numbers, with
        number: which of several pieces it is.
        max_tokens: bound on the new tokens.
    """
    vocabulary = tokenizer.vocabulary
    read, prefix = split_prompt(tokenizer.encode(prompt), vocabulary)
    until = prompt.end_of_onsets + seconds
    sequence = SequenceState([tokenizer.bos_id, *read], index=number, until=until, prefix=prefix)
    constraint = GrammarConstraint(Grammar.of(vocabulary), [sequence], MAX_EMPTY_BARS)
    parts = choice.parts(vocabulary)
    while not sequence.reached and sequence.new_tokens < max_tokens:
        playable = constraint.playable(constraint.legal())
        candidates = np.flatnonzero(playable[0])
        scores = np.full(playable.shape, -np.inf)
        scores[0, candidates] = np.log(next_probabilities(model, sequence.tail(order - 1), candidates))
        token = sample_from(probabilities(scores, playable, choice, parts), [sequence.uniform(seed)])
        in_prefix = constraint.advance(token)[0]
        sequence.add(int(token[0]), in_prefix=in_prefix, illegal=0.0, seconds=float(constraint.seconds()[0]))
    given = np.concatenate([tokenizer.base_ids(read), np.array(prefix, np.uint16)])
    drawn = tokenizer.base_ids(np.array(sequence.tokens, np.uint16))[len(prefix) :]
    splice = prompt.end_of_onsets
    new = drop_overlaps(
        decode_continuation(tokenizer, given, drawn).until(until), prompt, 1 / vocabulary.positions_per_second
    )
    return replace(new, pedal=np.maximum(new.pedal, splice)).shifted(-splice)
