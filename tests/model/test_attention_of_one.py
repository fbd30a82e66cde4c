"""What a new token's query sees; that it computes what a chunk computes, test_state.py shows."""

from __future__ import annotations

import pytest
import torch

from coma_gen.model.attention_of_one import Sight


@pytest.mark.parametrize(
    "lengths,window,visible,missing",
    [
        ((0,), 3, 1, None),
        ((2, 2), 3, 3, None),
        ((3, 9), 3, 4, None),
        ((9, 0, 2), 3, 4, [0, 3, 1]),
        ((1, 0), 3, 2, [0, 1]),
        ((5, 2), None, 6, [0, 3]),
        ((5, 5), None, 6, None),
    ],
)
def test_what_the_new_tokens_see(
    lengths: tuple[int, ...], window: int | None, visible: int, missing: list[int] | None
) -> None:
    sight = Sight.after(lengths, window=window, device=torch.device("cpu"))
    assert sight.visible == visible
    if missing is None:
        assert sight.exists is None
    else:
        assert sight.exists is not None and sight.exists.shape == (len(lengths), 1, 1, visible)
        for row, count in zip(sight.exists[:, 0, 0].tolist(), missing, strict=True):
            assert row == [False] * count + [True] * (visible - count)
