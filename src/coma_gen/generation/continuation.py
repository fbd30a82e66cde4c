"""Music from a trained model: from nothing, or going on where some notes end.

What goes in and comes out is `Notes`. A prompt's notes come back as they were played, not as the tokenizer's
grid has them; only what is new was decoded from tokens. The new music follows at the time where the prompt's
tokens end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from coma_gen.errors import Fault, UserError
from coma_gen.generation.decode import Growing, grow
from coma_gen.generation.filters import Choice
from coma_gen.model.device import choose_device
from coma_gen.model.weights import LoadedModel, load_model
from coma_gen.music.midi import midi_bytes, read_notes
from coma_gen.music.notes import Notes
from coma_gen.tokenizer.codec import decode_grid
from coma_gen.tokenizer.grammar import Grammar
from coma_gen.tokenizer.grid import sounding
from coma_gen.tokenizer.remi import Tokenizer

LONGEST_SECONDS = 36_000.0
"""Ten hours: with its prompt a piece stays below what a MIDI file of ours may last."""


@dataclass(frozen=True)
class Composer:
    """A model that can be asked for music: the weights, and the tokenizer that they were trained with."""

    loaded: LoadedModel
    tokenizer: Tokenizer
    grammar: Grammar

    @classmethod
    def load(cls, folder: Path, *, device: str = "cpu") -> Composer:
        """Reads what the train stage wrote.

        Raises:
            UserError: when something in the folder is changed, missing or does not belong together.
        """
        loaded = load_model(folder, device=choose_device(device))
        tokenizer = Tokenizer.load(folder / "tokenizer")
        if tokenizer.vocab_size != loaded.vocab_size:
            got = f"{tokenizer.vocab_size} tokens for weights of {loaded.vocab_size}"
            raise UserError(
                Fault(str(folder), "must hold the tokenizer that its weights were trained with", got)
            )
        return cls(loaded, tokenizer, Grammar.of(tokenizer.vocabulary))


@dataclass(frozen=True)
class Piece:
    """One piece of generated music.

    Attributes:
        notes: prompt and continuation together.
        joint: seconds at which the prompt ends; None where there was none.
        tokens: how many were drawn.
        illegal: mean probability that the model gave to tokens that could not follow.
        valid: whether every token, prompt included, obeys the grammar.
        reached: whether it has the seconds asked for; otherwise it ended at the bound on tokens.
        new: what was generated alone, from the joint on, its times counted from there.
    """

    notes: Notes
    joint: float | None
    tokens: int
    illegal: float
    valid: bool
    new: Notes
    reached: bool


def compose(
    composer: Composer,
    prompts: Sequence[Notes | None],
    *,
    seconds: float,
    choice: Choice,
    seed: int,
    max_tokens: int,
) -> list[Piece]:
    """Writes one piece for each prompt; None asks for music from nothing.

    Args:
        composer: model and tokenizer.
        prompts: B prompts. Piece i depends on its prompt, the seed and i alone.
        seconds: of new music.
        choice: how tokens are chosen.
        seed: of all random numbers.
        max_tokens: bound on the new tokens of one piece.
    """
    grammar, bos = composer.grammar, composer.tokenizer.bos_id
    sequences = []
    for index, prompt in enumerate(prompts):
        given = [bos, *(composer.tokenizer.encode(prompt).tolist() if prompt is not None else ())]
        if prompt is not None and len(prompt) and len(given) == 1:
            low, high = composer.tokenizer.vocabulary.pitch_range
            rule = f"must have a note that the model knows, of pitch {low} to {high}"
            raise UserError(Fault(f"prompt {index + 1}", rule, f"{len(prompt)} others"))
        start = prompt.end_of_onsets if prompt is not None else 0.0
        sequences.append(Growing.after(given, grammar, index=index, until=start + seconds))
    grow(composer.loaded.model, grammar, sequences, choice=choice, seed=seed, max_tokens=max_tokens)
    return [
        _finished(composer, sequence, prompt) for sequence, prompt in zip(sequences, prompts, strict=True)
    ]


def _finished(composer: Composer, sequence: Growing, prompt: Notes | None) -> Piece:
    tokenizer, grammar = composer.tokenizer, composer.grammar
    new = decoded_after(tokenizer, sequence.prompt, sequence.tokens)
    if prompt is not None:
        new = without_held_keys(new, prompt)
    return Piece(
        notes=new if prompt is None else prompt.joined(new),
        joint=None if prompt is None else prompt.end_of_onsets,
        tokens=len(sequence.tokens),
        reached=sequence.reached(grammar),
        illegal=float(np.mean(sequence.illegal)) if sequence.illegal else 0.0,
        valid=grammar.invalid(sequence.prompt + sequence.tokens) == 0,
        new=new if prompt is None else new.shifted(-min(prompt.end_of_onsets, new.onset.min(initial=np.inf))),
    )


def without_held_keys(new: Notes, prompt: Notes) -> Notes:
    """The new notes but for those that strike a key which the prompt still holds.

    MIDI has one end for both, and would cut the prompt's note short.
    """
    held = (new.pitch[:, None] == prompt.pitch) & (new.onset[:, None] < prompt.onset + prompt.duration)
    free = ~held.any(axis=1)
    return Notes(new.onset[free], new.duration[free], new.pitch[free], new.velocity[free], new.pedal)


def decoded_after(tokenizer: Tokenizer, prompt: Sequence[int], tokens: Sequence[int]) -> Notes:
    """The notes of `tokens` at their times behind `prompt`, without the prompt's own notes.

    The bars of the prompt and its last position are set before the new tokens, so that they decode at their
    time.
    """
    vocabulary = tokenizer.vocabulary
    base = [int(token) for token in tokenizer.base_ids(np.asarray(prompt[1:], np.uint16))]
    types = [vocabulary.base_types[token] for token in base]
    last_bar = max((place for place, kind in enumerate(types) if kind == "Bar"), default=-1)
    positions = [
        token
        for token, kind in zip(base[last_bar + 1 :], types[last_bar + 1 :], strict=True)
        if kind == "Position"
    ]
    lead = [vocabulary.base.index("Bar_None")] * types.count("Bar") + positions[-1:]
    following = [int(token) for token in tokenizer.base_ids(np.asarray(tokens, np.uint16))]
    return sounding(decode_grid(lead + following, vocabulary), vocabulary)


def continue_midi(
    model_folder: Path,
    midi: bytes | None,
    *,
    seconds: float,
    seed: int = 0,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = 0.95,
    min_p: float | None = None,
    prompt_seconds: float | None = None,
    max_tokens: int = 1_000_000,
) -> bytes:
    """A MIDI file in, a MIDI file with its continuation out.

    Args:
        model_folder: what the train stage wrote.
        midi: the prompt; None for music from nothing.
        seconds: of new music, above 0.
        seed: the same seed, the same bytes.
        temperature: 0 takes the likeliest token; above 1 is wilder, below 1 tamer.
        top_k: only the k likeliest tokens; None for all.
        top_p: only the likeliest tokens that make up this probability; None for all.
        min_p: only tokens at least this share as likely as the likeliest; None for all.
        prompt_seconds: take only this much of the prompt; None takes all.
        max_tokens: bound on the new tokens.

    Raises:
        UserError: for a prompt that is not playable MIDI, or a setting out of range.
    """
    choice = Choice(temperature, top_k, top_p, min_p)
    faults = choice.faults()
    if not 0 < seconds <= LONGEST_SECONDS:
        faults.append(Fault("seconds", f"must be above 0 and at most {LONGEST_SECONDS:.0f}", str(seconds)))
    if faults:
        raise UserError(*faults)
    prompt = None if midi is None else read_notes(midi, name="prompt")
    if prompt is not None and prompt_seconds is not None:
        prompt = prompt.until(prompt_seconds)
    composer = Composer.load(model_folder)
    piece = compose(composer, [prompt], seconds=seconds, choice=choice, seed=seed, max_tokens=max_tokens)[0]
    return midi_bytes(piece.notes)
