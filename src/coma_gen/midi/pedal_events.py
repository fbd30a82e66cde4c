"""The sustain pedal: from control changes to the intervals in which it is down."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

SUSTAIN = 64
"""The controller number of the sustain pedal."""

RESET = 121
"""The controller number of a reset of all controllers, which lifts it (RP-015)."""

DOWN_FROM = 64
"""The least value of it that means down."""

Ticks = npt.NDArray[np.int64]


def pedal_intervals(events: Ticks, end: int) -> Ticks:
    """The ticks at which one channel's pedal goes down and up.

    Args:
        events: (E, 2) tick and value, in the order of time.
        end: the last tick of the piece; a pedal that is still down rises there.

    Returns:
        (P, 2), sorted; without those of no length.
    """
    is_down = np.concatenate([[False], events[:, 1] >= DOWN_FROM])
    times = events[np.flatnonzero(is_down[1:] != is_down[:-1]), 0]
    if len(times) % 2:
        times = np.append(times, end)
    pairs: Ticks = times.reshape(-1, 2)
    down, up = pairs.T
    presses: Ticks = pairs[up > down]
    return presses
