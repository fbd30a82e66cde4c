"""The sustain pedal: converts control changes to the intervals in which it is down."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

SUSTAIN = 64
"""The controller number of the sustain pedal."""

RESET = 121
"""The controller number of "reset all controllers", which releases the pedal (RP-015)."""

DOWN_FROM = 64
"""The lowest controller value that means down."""

Ticks = npt.NDArray[np.int64]


def pedal_intervals(events: Ticks, end: int) -> Ticks:
    """Computes the intervals in ticks during which one channel's pedal is down.

    Args:
        events: (E, 2) tick and value, sorted by time.
        end: Last tick of the piece, where a pedal that is still down is released.

    Returns:
        (P, 2) sorted intervals; empty ones are dropped.
    """
    is_down = np.concatenate([[False], events[:, 1] >= DOWN_FROM])
    times = events[np.flatnonzero(is_down[1:] != is_down[:-1]), 0]
    if len(times) % 2:
        times = np.append(times, end)
    pairs: Ticks = times.reshape(-1, 2)
    down, up = pairs.T
    presses: Ticks = pairs[up > down]
    return presses
