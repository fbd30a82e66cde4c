"""Training windows: a function of (seed, step, index in the batch), not a stream.

So step 700 of a resumed run sees what step 700 of an uninterrupted one does, whatever the number of
workers or machines that share a batch.

    piece    BOS  a    b    c    d   EOS
    input         a    b    c                  seq_len = 3, from offset 1
    target        b    c    d

An offset is drawn as if windows could begin up to seq_len - 1 tokens before the piece and end as far behind
    it; what hangs over is then moved inside. So beginnings and ends, with their BOS and EOS, are learned as
    well as the middle: no token is a target less often than the others.

    input    BOS  a   EOS  pad  pad            a piece shorter than the window is padded on the right,
    target    a  EOS   -    -    -             and nothing is asked there (IGNORE)
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from coma_gen.core.errors import Fault, UserError
from coma_gen.core.seeding import generator
from coma_gen.shards.read import Ids, ShardedSplit

Tokens = npt.NDArray[np.int64]
IGNORE = -100
"""A target that no loss is taken of."""
MAX_DRAWS = 16
"""How often a shift is drawn before a window stays as it is."""


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
    """Draws a batch of windows, each uniformly among all offsets of all pieces the split was opened with.

    With shift tables each window is transposed and made louder or softer by a row drawn uniformly among
    those that keep all its pitches in range (a row that does not is drawn again, up to `MAX_DRAWS` times;
    then the window stays as it is).

    Args:
        split: where the windows come from.
        seed: of the run.
        step: the optimizer step.
        batch: how many windows.
        seq_len: tokens of a window.
        shifts: (K, V) tables, or None for none.
        pad_id: fills the inputs of short pieces.
        first: index in the step's batch of the first of these windows, for batches that are drawn in parts.

    Returns:
        input_ids and targets, both (batch, seq_len).

    Raises:
        UserError: when the split is empty.
    """
    if not len(split):
        raise UserError(Fault(f"shards/{split.split}", "must hold a piece to draw windows from", "none"))
    ends = split.window_ends(seq_len)
    input_ids = np.full((batch, seq_len), pad_id, np.int64)
    targets = np.full((batch, seq_len), IGNORE, np.int64)
    for row in range(batch):
        draw = generator(seed, "window", step, first + row)
        offset = int(draw.integers(int(ends[-1])))
        piece = int(np.searchsorted(ends, offset, side="right"))
        start = offset - int(ends[piece - 1]) if piece else offset
        start = min(max(0, start - (seq_len - 1)), max(0, int(split.lengths[piece]) - 1 - seq_len))
        window = split.piece(piece)[start : start + seq_len + 1]
        if shifts is not None and len(shifts) > 1:
            window = _shifted(window, shifts, draw)
        input_ids[row, : len(window) - 1] = window[:-1]
        targets[row, : len(window) - 1] = window[1:]
    return input_ids, targets


def _shifted(window: Ids, shifts: Ids, draw: np.random.Generator) -> Ids:
    """The window under a row of the tables; an id beyond the vocabulary is a pitch that left the range."""
    for _ in range(MAX_DRAWS):
        moved = shifts[int(draw.integers(len(shifts)))][window]
        if moved.max() < shifts.shape[1]:
            return np.asarray(moved, np.uint16)
    return window
