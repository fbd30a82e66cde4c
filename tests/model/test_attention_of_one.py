"""What a new token's query sees; that it computes what a chunk computes, test_cache.py shows."""

from __future__ import annotations

import pytest
import torch

from coma_gen.generation.token_attention import VisibleSpan


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
    span = VisibleSpan.after(lengths, window=window, device=torch.device("cpu"))
    assert span.visible == visible
    if missing is None:
        assert span.exists is None
    else:
        assert span.exists is not None and span.exists.shape == (len(lengths), 1, 1, visible)
        for row, count in zip(span.exists[:, 0, 0].tolist(), missing, strict=True):
            assert row == [False] * count + [True] * (visible - count)
