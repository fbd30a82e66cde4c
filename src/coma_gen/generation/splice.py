"""Joins a prompt and its continuation at the splice, the onset of the prompt's last note.

Shapes: N notes, T base ids.
"""

from __future__ import annotations

import numpy as np

from coma_gen.midi.notes import Notes
from coma_gen.tokenizer.codec import decode_grid
from coma_gen.tokenizer.grid import to_notes
from coma_gen.tokenizer.remi import Tokenizer
from coma_gen.tokenizer.vocabulary import Ids


def decode_continuation(tokenizer: Tokenizer, prompt: Ids, following: Ids) -> Notes:
    """Decodes the notes of a continuation at their times, without the prompt's own notes.

    The bars of the prompt, its last position and a pedal that is down are put before the new ids, so that the
    new ids decode at the right time.

    Args:
        tokenizer: Tokenizer of the ids.
        prompt: (T,) base ids of the prompt, without BOS.
        following: (T',) base ids of the continuation.
    """
    vocabulary = tokenizer.vocabulary
    types = np.array(vocabulary.base_types)[np.asarray(prompt, np.int64)]
    bars, positions, pedals = (
        np.flatnonzero(np.isin(types, kinds)) for kinds in (["Bar"], ["Position"], ["Pedal", "PedalOff"])
    )
    lead = [vocabulary.span("Bar").start] * len(bars)
    if len(positions) and positions[-1] > bars[-1]:
        lead.append(int(prompt[positions[-1]]))
    if len(pedals) and types[pedals[-1]] == "Pedal":
        lead.append(vocabulary.span("Pedal").start)
    return to_notes(decode_grid([*lead, *following.tolist()], vocabulary), vocabulary)


def drop_overlaps(new: Notes, prompt: Notes, step: float) -> Notes:
    """Drops new notes that begin before the splice or on a key which the prompt still holds.

    No pianist can strike a key that is down, and the two notes would sound as one doubled note. A new note
    can begin before the splice only where the prompt's last notes have pitches outside the vocabulary.

    Args:
        new: New notes, at their times after the prompt.
        prompt: The prompt as played.
        step: Seconds per position. A valid new note begins at least half a position after the splice.
    """
    released = np.zeros(128)
    np.maximum.at(released, prompt.pitch, prompt.onset + prompt.duration)
    free = (new.onset >= released[new.pitch]) & (new.onset > prompt.end_of_onsets + step / 4)
    return Notes(new.onset[free], new.duration[free], new.pitch[free], new.velocity[free], new.pedal)


def merge_pedals(prompt: Notes, added: Notes) -> tuple[Notes, Notes]:
    """Divides the pedal at the splice between the prompt and a continuation with generated pedal events.

    From the splice on the pedal is the model's: one that is down at the splice is released where the model
    releases it, and belongs to `added` from there on.
    """
    prompt_end = prompt.end_of_onsets
    before = np.minimum(prompt.pedal[prompt.pedal[:, 0] <= prompt_end], prompt_end)
    after = np.maximum(added.pedal, prompt_end)
    if len(before) and len(after) and before[-1, 1] == prompt_end == after[0, 0]:
        before[-1, 1] = after[0, 1]
    parts = ((prompt, before), (added, after))
    one, other = (
        Notes(notes.onset, notes.duration, notes.pitch, notes.velocity, pedal[pedal[:, 1] > pedal[:, 0]])
        for notes, pedal in parts
    )
    return one, other
