"""Generates music with a trained model, unprompted or as the continuation of a prompt.

Input and output are `Notes`. The prompt's notes are returned as they were played, not as the tokenizer's grid
has them; only new notes are decoded from tokens. The grid begins at the prompt's first note, so the model
does not see silence before it. The splice is the onset of the prompt's last note: every note up to it belongs
to the prompt, and every new note begins at a later position of the grid.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from coma_gen.core.errors import Fault, UserError
from coma_gen.generation.condition_sequence import ConditionSequence
from coma_gen.generation.continuation import Continuation
from coma_gen.generation.controls import Controls
from coma_gen.generation.music_generator import MusicGenerator
from coma_gen.generation.ranking import nearest
from coma_gen.generation.request import MAX_EMPTY_BARS, MAX_REWINDS, Request
from coma_gen.generation.sampling import SamplingParams
from coma_gen.generation.sampling_loop import sample_tokens
from coma_gen.generation.sequence import SequenceState
from coma_gen.generation.splice import decode_continuation, drop_overlaps, merge_pedals
from coma_gen.generation.token_healing import split_prompt
from coma_gen.midi.io import midi_bytes
from coma_gen.midi.notes import Notes
from coma_gen.midi.prompt import Prompt, read_prompt
from coma_gen.tokenizer.remi import Tokenizer

Watcher = Callable[[Callable[[], "list[Continuation]"]], None]
"""Callback after each token; it receives a function that returns the pieces so far, and may raise to stop."""


def generate_batch(
    composer: MusicGenerator,
    prompts: Sequence[Notes | None],
    *,
    seconds: float,
    sampling: SamplingParams,
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
    """Generates one piece for each prompt; a prompt of None gives unprompted music.

    Args:
        composer: Model and tokenizer.
        prompts: B prompts. A piece depends only on its prompt, the seed and its number.
        seconds: Length of the new music: all its notes begin within this time.
        sampling: Sampling parameters.
        seed: Seed of all random numbers.
        max_tokens: Maximum number of new tokens per piece.
        max_empty_bars: Maximum number of consecutive empty bars.
        max_rewinds: How often a piece may be rewound from one bar to leave a loop.
        desc: Label of the progress bar; None hides it.
        name: Name of the prompt in errors, where all are the same; by default each is named by its number.
        numbers: Numbers of the pieces; 0 to B - 1 by default.
        watch: Callback that observes the pieces; it does not change them.
        controls: Requested properties of the new music; the key "prompt" is that of the first prompt. None
            requests nothing, but a model with conditions still follows the prompt.

    Raises:
        UserError: A prompt has no note in the vocabulary, or a control needs a condition that the model
            lacks.
    """
    controls, tables = controls or Controls(), composer.conditions
    names = () if tables is None else tables.names
    if faults := controls.unsupported(names):
        raise UserError(*faults)
    encoded: dict[int, tuple[list[int], tuple[int, ...], ConditionSequence | None]] = {}
    sequences = []
    for index, prompt in zip(numbers or range(len(prompts)), prompts, strict=True):
        if id(prompt) not in encoded:
            ids, prefix = _encode_prompt(composer.tokenizer, prompt, name or f"prompt {index + 1}")
            ids = [composer.tokenizer.bos_id, *ids]
            bins = None if tables is None else ConditionSequence.from_prompt(controls, tables, ids, prefix)
            encoded[id(prompt)] = ids, prefix, bins
        ids, prefix, bins = encoded[id(prompt)]
        until = seconds if prompt is None else prompt.end_of_onsets - _get_grid_origin(prompt) + seconds
        sequences.append(SequenceState(list(ids), index=index, until=until, prefix=prefix, conditions=bins))

    def pieces() -> list[Continuation]:
        pairs = zip(sequences, prompts, strict=True)
        return [_build_continuation(composer, sequence, prompt) for sequence, prompt in pairs]

    sample_tokens(
        composer.loaded.model,
        composer.grammar,
        sequences,
        sampling=sampling,
        seed=seed,
        max_tokens=max_tokens,
        max_empty_bars=max_empty_bars,
        max_rewinds=max_rewinds,
        logit_bias=controls.logit_bias(composer.tokenizer.vocabulary, prompts[0], conditions=names)
        if prompts
        else None,
        desc=desc,
        watch=None if watch is None else lambda: watch(pieces),
    )
    return pieces()


def _get_grid_origin(prompt: Notes | None) -> float:
    """Returns the time at which the tokenizer's grid begins: the onset of the first note."""
    return 0.0 if prompt is None or not len(prompt) else float(prompt.onset[0])


def _encode_prompt(
    tokenizer: Tokenizer, prompt: Notes | None, name: str
) -> tuple[list[int], tuple[int, ...]]:
    """Encodes a prompt as ids and a prefix of base ids (see `token_healing.split_prompt`)."""
    if prompt is None or not len(prompt):
        return [], ()
    origin = _get_grid_origin(prompt)
    ids = tokenizer.encode(prompt.between(origin, np.inf).shifted(-origin))
    read, prefix = split_prompt(ids, tokenizer.vocabulary)
    if not read and not prefix:
        low, high = tokenizer.vocabulary.pitch_range
        rule = f"must have a note that the model knows, of pitch {low} to {high}"
        raise UserError(Fault(name, rule, f"{len(prompt)} others"))
    return read, prefix


def _build_continuation(
    composer: MusicGenerator, sequence: SequenceState, prompt: Notes | None
) -> Continuation:
    """Decodes a sequence, removes overlaps with the prompt and merges the pedals."""
    tokenizer = composer.tokenizer
    tokens = np.array(sequence.tokens, np.uint16)
    prompt_ids = np.concatenate(
        [tokenizer.base_ids(sequence.prompt[1:]), np.array(sequence.prefix, np.uint16)]
    )
    new_ids = tokenizer.base_ids(tokens)[len(sequence.prefix) :]
    decoded = (
        decode_continuation(tokenizer, prompt_ids, new_ids)
        .until(sequence.until)
        .shifted(_get_grid_origin(prompt))
    )
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
    """Encodes a piece as MIDI: the prompt's file with one more track, or a new file without a prompt."""
    if prompt is None:
        return midi_bytes(piece.notes, program=request.instrument or 0)
    written = prompt.encode_alone if request.only_new else prompt.append_track
    return written(piece.added, program=request.instrument)


def continue_midi(
    composer: MusicGenerator, midi: bytes | None, request: Request, *, name: str
) -> list[bytes]:
    """Continues a MIDI file.

    Args:
        composer: Model and tokenizer.
        midi: Content of the prompt's file; None for unprompted music.
        request: Number, length and sampling of the continuations.
        name: Name of the prompt in errors.

    Returns:
        One MIDI file for each of the `request.num` pieces.

    Raises:
        UserError: The prompt is not a valid MIDI file with notes, or a setting is out of range.
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
    """Generates the pieces of a request; `watch` observes them meanwhile.

    Raises:
        UserError: The prompt has no note in the vocabulary, or prompt and new music together are too long.
    """
    notes = None if prompt is None else prompt.notes
    pieces = generate_batch(
        composer,
        [notes] * request.draws,
        seconds=request.seconds_after(notes),
        sampling=request.sampling,
        seed=request.seed,
        max_tokens=request.max_tokens,
        max_empty_bars=request.max_empty_bars,
        max_rewinds=request.max_rewinds,
        desc="music" if watch is None else None,
        name=None if prompt is None else prompt.name,
        watch=watch,
        controls=request.controls,
    )
    return pieces if request.best_of is None else nearest(pieces, request.num)
