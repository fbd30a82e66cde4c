"""What the page is told of music while it is made."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

from coma_gen.midi.notes import Notes
from coma_gen.play.jobs import Report

BETWEEN_REPORTS = 0.2
"""Seconds between two looks at the music while it is made."""
Look = Callable[[], Sequence[Notes]]


def follow(report: Report, *, start: float, prompt_end: float = 0.0) -> Callable[[Look], None]:
    """Reports what is new in each piece, now and then; ends the work when nobody reads any more.

    Args:
        report: to whoever asked.
        start: second of the pieces that is shown as 0.
        prompt_end: second from which new music is counted.
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
            # Music grows in the order of time: what begins after what was sent is new, and nothing before.
            again = notes.between(sent[number], math.inf)
            sent[number] = max(sent[number], notes.end_of_onsets)
            begins = round(float(again.onset.min(initial=math.inf)) - start, 4) if len(again) else None
            seconds = round(max(0.0, sent[number] - prompt_end), 2)
            progress.append({"from": begins, "notes": rows(again.shifted(-start)), "seconds": seconds})
        report({"progress": progress})
        due = time.monotonic() + BETWEEN_REPORTS

    return watch


def rows(notes: Notes) -> list[list[float]]:
    """[onset, duration, pitch, velocity] of each note."""
    columns = (notes.onset.round(4), notes.duration.round(4), notes.pitch, notes.velocity)
    return [list(row) for row in zip(*(column.tolist() for column in columns), strict=True)]
