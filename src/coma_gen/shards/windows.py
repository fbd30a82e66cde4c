"""Training windows as a function of (seed, step, index in the batch), without a stateful data loader.

Step 700 of a resumed run has the same windows as step 700 of an uninterrupted run, for any number of workers
or machines that share a batch.

    piece    BOS  a    b    c    d   EOS
    input         a    b    c                  seq_len = 3, from offset 1
    target        b    c    d

Offsets are drawn as if windows could start up to seq_len - 1 tokens before a piece and end as far after it;
windows that extend beyond an end are then moved inside. Tokens near the beginning and the end of a piece, BOS
and EOS included, are therefore targets at least as often as the others.

    input    BOS  a   EOS  pad  pad            a piece shorter than the window is padded on the right
    target    a  EOS   -    -    -             with targets IGNORE
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from coma_gen.core.errors import Fault, UserError
from coma_gen.core.seeding import generator
from coma_gen.shards.read import Ids, ShardedSplit

Tokens = npt.NDArray[np.int64]
IGNORE = -100
"""Target that the loss ignores."""
MAX_DRAWS = 16
"""Maximum number of draws of a shift before a window is left unshifted."""


def draw_windows(
    split: ShardedSplit,
    *,
    seed: int,
    step: int,
    batch: int,
    seq_len: int,
    shifts: Ids | None,
    pad_id: int,
    first: int = 0,
) -> tuple[Tokens, Tokens]:
    """Draws a batch of windows, each uniformly from all offsets of all pieces of the split.

    With shift tables, each window is transposed and velocity-shifted by a row drawn uniformly from those that
    keep all its pitches in range: other rows are redrawn up to `MAX_DRAWS` times, then the window is left
    unshifted.

    Args:
        split: Split to draw from.
        seed: Seed of the run.
        step: Optimizer step.
        batch: Number of windows.
        seq_len: Number of tokens of a window.
        shifts: (K, V) shift tables, or None.
        pad_id: Id that pads the inputs of short pieces.
        first: Index of the first window in the step's batch, for batches drawn in parts.

    Returns:
        input_ids and targets, both (batch, seq_len).

    Raises:
        UserError: If the split is empty.
    """
    if not len(split):
        raise UserError(Fault(f"shards/{split.split}", "must hold a piece to draw windows from", "none"))
    ends = split.window_ends(seq_len)
    input_ids = np.full((batch, seq_len), pad_id, np.int64)
    targets = np.full((batch, seq_len), IGNORE, np.int64)
    for row in range(batch):
        rng = generator(seed, "window", step, first + row)
        offset = int(rng.integers(int(ends[-1])))
        piece = int(np.searchsorted(ends, offset, side="right"))
        start = offset - int(ends[piece - 1]) if piece else offset
        start = min(max(0, start - (seq_len - 1)), max(0, int(split.lengths[piece]) - 1 - seq_len))
        window = split.piece(piece)[start : start + seq_len + 1]
        if shifts is not None and len(shifts) > 1:
            window = _shift_window(window, shifts, rng)
        input_ids[row, : len(window) - 1] = window[:-1]
        targets[row, : len(window) - 1] = window[1:]
    return input_ids, targets


def _shift_window(window: Ids, shifts: Ids, rng: np.random.Generator) -> Ids:
    """Applies a random row of the shift tables; ids beyond the vocabulary mark pitches out of range."""
    for _ in range(MAX_DRAWS):
        shifted = shifts[int(rng.integers(len(shifts)))][window]
        if shifted.max() < shifts.shape[1]:
            return np.asarray(shifted, np.uint16)
    return window
