"""Progress events of a generation."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

from coma_gen.midi.notes import Notes
from coma_gen.play.jobs import Report

REPORT_SECONDS = 0.2
"""Minimum interval between progress events."""
Look = Callable[[], Sequence[Notes]]


def follow(report: Report, *, start: float, prompt_end: float = 0.0) -> Callable[[Look], None]:
    """Returns a callback that reports the new notes of each piece, and raises if the job was stopped.

    Args:
        report: Sends an event to the client.
        start: Time of the pieces that the page shows as 0 s.
        prompt_end: Time from which new seconds are counted.
    """
    due = 0.0
    sent: list[float] = []

    def watch(look: Look) -> None:
        nonlocal due
        report({})
        if time.monotonic() < due:
            return
        made = look()
        sent.extend([0.0] * (len(made) - len(sent)))
        progress = []
        for number, notes in enumerate(made):
            # Notes are generated in order of onset: all notes after the last sent onset are new.
            again = notes.between(sent[number], math.inf)
            sent[number] = max(sent[number], notes.end_of_onsets)
            begins = round(float(again.onset.min(initial=math.inf)) - start, 4) if len(again) else None
            seconds = round(max(0.0, sent[number] - prompt_end), 2)
            progress.append({"from": begins, "notes": rows(again.shifted(-start)), "seconds": seconds})
        report({"progress": progress})
        due = time.monotonic() + REPORT_SECONDS

    return watch


def rows(notes: Notes) -> list[list[float]]:
    """[onset, duration, pitch, velocity] of each note."""
    columns = (notes.onset.round(4), notes.duration.round(4), notes.pitch, notes.velocity)
    return [list(row) for row in zip(*(column.tolist() for column in columns), strict=True)]
