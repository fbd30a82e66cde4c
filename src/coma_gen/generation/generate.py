"""Music from a trained model: from nothing, or going on where some notes end.

What goes in and comes out is `Notes`. A prompt's notes come back as they were played, not as the tokenizer's
grid has them; only what is new was decoded from tokens. The grid begins at the prompt's first note, so that
silence before it is none of the model's. New music begins at a later position of it than the prompt's last
note has: every note that begins up to there, the splice, is the prompt's, and every later one is new.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from coma_gen.core.errors import Fault, UserError
from coma_gen.generation.controls import Controls
from coma_gen.generation.music_generator import MusicGenerator
from coma_gen.generation.ranking import nearest
from coma_gen.generation.request import MAX_EMPTY_BARS, MAX_REWINDS, Request
from coma_gen.generation.sampling import SamplingParams
from coma_gen.generation.sampling_loop import sample_tokens
from coma_gen.generation.sequence import SequenceState
from coma_gen.generation.splice import decode_continuation, drop_overlaps, merge_pedals
from coma_gen.generation.token_healing import read_and_spelled
from coma_gen.generation.told import Told
from coma_gen.midi.io import midi_bytes
from coma_gen.midi.notes import Notes
from coma_gen.midi.prompt import Prompt, read_prompt
from coma_gen.tokenizer.remi import Tokenizer

Watcher = Callable[[Callable[[], "list[Continuation]"]], None]
"""Called after each token with a function that returns the pieces as they are now; what it raises ends the
sampling."""


@dataclass(frozen=True)
class Continuation:
    """One piece of generated music.

    Attributes:
        prompt: what was given, with the pedal as the model goes on with it; None for music from nothing.
        added: what is new, at its times behind the prompt.
        tokens: how many were drawn for it.
        illegal: mean probability that the model gave to tokens that could not follow.
        valid: whether every token, prompt included, obeys the grammar.
        reached: whether it has the seconds asked for; otherwise it ended at the bound on tokens.
        rewinds: how often it was stuck and went back.
        redrawn: tokens that were drawn and dropped by that.
        draw: which of the draws it was, counted from 1, where the nearest to the prompt are kept; its
            `distance` from the prompt (see `ranking`); and `tokens_of_all_draws`. None where all are kept.
        left_out: how many new notes there were that would have fallen into the prompt: on a key that it
            still holds, or before its last note (which may be of a pitch that the model does not know).
    """

    prompt: Notes | None
    added: Notes
    tokens: int
    illegal: float
    valid: bool
    reached: bool
    left_out: int
    rewinds: int = 0
    redrawn: int = 0
    draw: int | None = None
    distance: float | None = None
    tokens_of_all_draws: int | None = None

    @property
    def prompt_end(self) -> float | None:
        """Seconds at which the prompt's last note begins; None where there was no prompt."""
        return None if self.prompt is None else self.prompt.end_of_onsets

    @cached_property
    def notes(self) -> Notes:
        """Prompt and continuation together."""
        return self.added if self.prompt is None else self.prompt.joined(self.added)

    @property
    def new(self) -> Notes:
        """What is new, its times counted from the splice."""
        return self.added if self.prompt_end is None else self.added.shifted(-self.prompt_end)


def generate_batch(
    composer: MusicGenerator,
    prompts: Sequence[Notes | None],
    *,
    seconds: float,
    choice: SamplingParams,
    seed: int,
    max_tokens: int,
    max_empty_bars: int = MAX_EMPTY_BARS,
    max_rewinds: int = MAX_REWINDS,
    desc: str | None = "sample",
    name: str | None = None,
    numbers: Sequence[int] | None = None,
    watch: Watcher | None = None,
    controls: Controls | None = None,
) -> list[Continuation]:
    """Writes one piece for each prompt; None asks for music from nothing.

    Args:
        composer: model and tokenizer.
        prompts: B prompts. Piece i depends on its prompt, the seed and its number alone.
        seconds: of new music: it begins within them.
        choice: how tokens are chosen.
        seed: of all random numbers.
        max_tokens: bound on the new tokens of one piece.
        max_empty_bars: bound on the empty bars in a row.
        max_rewinds: how often a piece goes back from one bar where it is stuck.
        desc: what the progress bar says; None for no bar.
        name: how faults call the prompt, where all are the same; their numbers by default.
        numbers: of the pieces; 0 to B - 1 by default.
        watch: follows the pieces while they are made; it changes none of their tokens.
        controls: musical wishes; a key that is the prompt's is that of the first. None to wish for nothing,
            but to follow the prompt where the model has conditions.

    Raises:
        UserError: a prompt has no note that the model knows; a wish needs another model.
    """
    controls, conditions = controls or Controls(), composer.conditions
    names = () if conditions is None else conditions.names
    if faults := controls.unmet(names):
        raise UserError(*faults)
    written: dict[int, tuple[list[int], tuple[int, ...], Told | None]] = {}
    sequences = []
    for index, prompt in zip(numbers or range(len(prompts)), prompts, strict=True):
        if id(prompt) not in written:
            read, spelled = _written(composer.tokenizer, prompt, name or f"prompt {index + 1}")
            given = [composer.tokenizer.bos_id, *read]
            told = None if conditions is None else Told.of(controls, conditions, given, spelled)
            written[id(prompt)] = given, spelled, told
        given, spelled, told = written[id(prompt)]
        until = seconds if prompt is None else prompt.end_of_onsets - _origin(prompt) + seconds
        sequences.append(SequenceState(list(given), index=index, until=until, spelled=spelled, told=told))

    def pieces() -> list[Continuation]:
        pairs = zip(sequences, prompts, strict=True)
        return [_finished(composer, sequence, prompt) for sequence, prompt in pairs]

    sample_tokens(
        composer.loaded.model,
        composer.grammar,
        sequences,
        choice=choice,
        seed=seed,
        max_tokens=max_tokens,
        max_empty_bars=max_empty_bars,
        max_rewinds=max_rewinds,
        pull=controls.pull(composer.tokenizer.vocabulary, prompts[0], told=names) if prompts else None,
        desc=desc,
        watch=None if watch is None else lambda: watch(pieces),
    )
    return pieces()


def _origin(prompt: Notes | None) -> float:
    """Where the tokenizer's grid begins: at the first note."""
    return 0.0 if prompt is None or not len(prompt) else float(prompt.onset[0])


def _written(tokenizer: Tokenizer, prompt: Notes | None, name: str) -> tuple[list[int], tuple[int, ...]]:
    """A prompt as ids to be read and base ids to be spelled."""
    if prompt is None or not len(prompt):
        return [], ()
    origin = _origin(prompt)
    ids = tokenizer.encode(prompt.between(origin, np.inf).shifted(-origin))
    read, spelled = read_and_spelled(ids, tokenizer.vocabulary)
    if not read and not spelled:
        low, high = tokenizer.vocabulary.pitch_range
        rule = f"must have a note that the model knows, of pitch {low} to {high}"
        raise UserError(Fault(name, rule, f"{len(prompt)} others"))
    return read, spelled


def _finished(composer: MusicGenerator, sequence: SequenceState, prompt: Notes | None) -> Continuation:
    tokenizer = composer.tokenizer
    tokens = np.array(sequence.tokens, np.uint16)
    given = np.concatenate([tokenizer.base_ids(sequence.prompt[1:]), np.array(sequence.spelled, np.uint16)])
    following = tokenizer.base_ids(tokens)[len(sequence.spelled) :]
    decoded = decode_continuation(tokenizer, given, following).until(sequence.until).shifted(_origin(prompt))
    added = (
        decoded
        if prompt is None
        else drop_overlaps(decoded, prompt, 1 / tokenizer.vocabulary.positions_per_second)
    )
    left_out = len(decoded) - len(added)
    if prompt is not None and composer.writes_pedal:
        prompt, added = merge_pedals(prompt, added)
    return Continuation(
        prompt=prompt,
        added=added,
        tokens=sequence.new_tokens,
        reached=sequence.reached,
        illegal=sum(sequence.illegal) / max(1, sequence.new_tokens),
        valid=composer.grammar.invalid([*sequence.prompt, *sequence.tokens]) == 0,
        left_out=left_out,
        rewinds=sequence.rewinds,
        redrawn=sequence.redrawn,
    )


def piece_midi(piece: Continuation, prompt: Prompt | None, request: Request) -> bytes:
    """A piece as a MIDI file: the prompt's own with one more track, or the new notes in a file of ours."""
    if prompt is None:
        return midi_bytes(piece.notes, program=request.instrument or 0)
    written = prompt.alone if request.only_new else prompt.continued
    return written(piece.added, program=request.instrument)


def continue_midi(
    composer: MusicGenerator, midi: bytes | None, request: Request, *, name: str
) -> list[bytes]:
    """A MIDI file in, MIDI files with its continuations out.

    Args:
        composer: model and tokenizer.
        midi: the prompt's file; None for music from nothing.
        request: what is asked for.
        name: how faults call the prompt.

    Returns:
        As many files as the request has pieces.

    Raises:
        UserError: for a prompt that is not playable MIDI, or a setting out of range.
    """
    if faults := request.faults():
        raise UserError(*faults)
    prompt = None
    if midi is not None:
        prompt = read_prompt(midi, name=name, open_pedal=composer.writes_pedal, **request.passage)
    return [piece_midi(piece, prompt, request) for piece in generate_request(composer, prompt, request)]


def generate_request(
    composer: MusicGenerator, prompt: Prompt | None, request: Request, *, watch: Watcher | None = None
) -> list[Continuation]:
    """The pieces that a request asks for; `watch` follows them while they are made.

    Raises:
        UserError: the prompt has no note that the model knows, or is too long for the seconds.
    """
    notes = None if prompt is None else prompt.notes
    pieces = generate_batch(
        composer,
        [notes] * request.draws,
        seconds=request.seconds_after(notes),
        choice=request.choice,
        seed=request.seed,
        max_tokens=request.most_tokens,
        max_empty_bars=request.max_empty_bars,
        max_rewinds=request.max_rewinds,
        desc="music" if watch is None else None,
        name=None if prompt is None else prompt.name,
        watch=watch,
        controls=request.controls,
    )
    return pieces if request.best_of is None else nearest(pieces, request.num)
