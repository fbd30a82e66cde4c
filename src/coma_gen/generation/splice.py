"""The splice: where a prompt's last note begins, and new music goes on behind it.

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
    """The notes of base ids behind those of a prompt, at their times, without the prompt's own notes.

    The bars of the prompt, its last position and a pedal that is down are set before the new ids, so that
    they decode at their time.

    Args:
        tokenizer: knows the ids.
        prompt: (T,) base ids without BOS.
        following: (T',) base ids.
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
    """The new notes that begin behind the splice, and strike no key which the prompt still holds.

    No pianist can strike such a key, and the two would sound as one note that is doubled. Before the splice
    new notes begin only where the prompt's last notes are of pitches that the model does not know.

    Args:
        new: at its times behind the prompt.
        prompt: what was played.
        step: seconds of a position. A new note is half of it behind the splice, or more.
    """
    released = np.zeros(128)
    np.maximum.at(released, prompt.pitch, prompt.onset + prompt.duration)
    free = (new.onset >= released[new.pitch]) & (new.onset > prompt.end_of_onsets + step / 4)
    return Notes(new.onset[free], new.duration[free], new.pitch[free], new.velocity[free], new.pedal)


def merge_pedals(prompt: Notes, added: Notes) -> tuple[Notes, Notes]:
    """Prompt and new notes where the model writes the pedal: from the splice on it is the model's.

    A pedal that is down at the splice rises where the model lifts it; `added` has it from the splice on.
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
