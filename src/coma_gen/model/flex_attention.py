"""Local attention with FlexAttention: one call for all scales, whose block mask has a window per head.

    heads     0 ... H - 1   H ... 2 H - 1   ...
    window    w of scale 0  w of scale 1    ...

Used on CUDA, where torch compiles it into one kernel that skips blocks outside the band (Dong et al. 2024,
arXiv 2412.05496). Only compile.py imports this module, lazily, because it imports torch's compiler.

Shapes: B batch, G scales, H heads of a scale, T tokens, d head dim.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import FlexKernelOptions

BIASED_KERNEL: FlexKernelOptions = {"num_stages": 1}
"""Kernel options for biases: one pipeline stage, since biases and their gradient need shared memory, too, and
the default number of stages exceeds it.
"""


def block_mask(
    window_sizes: Sequence[int | None], *, num_heads: int, length: int, device: torch.device
) -> BlockMask:
    """Builds the block mask of all heads; a window of None is fully causal."""
    windows = torch.tensor([length if window is None else window for window in window_sizes], device=device)
    reach = windows.repeat_interleave(num_heads)

    def is_visible(_row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (query >= key) & (query - key <= reach[head])

    return create_block_mask(
        is_visible, B=None, H=reach.numel(), Q_LEN=length, KV_LEN=length, device=str(device)
    )


@dataclass(frozen=True)
class FlexBand:
    """FlexAttention over whole sequences of one length.

    Attributes:
        mask: Block mask of all scales.
        length: T.
        softmax_scale: Factor of the logits.
    """

    mask: BlockMask
    length: int
    softmax_scale: float

    def __call__(
        self,
        queries: Sequence[Tensor],
        keys: Sequence[Tensor],
        values: Sequence[Tensor],
        biases: Tensor | None,
    ) -> Tensor:
        """Attends in all scales at once.

        Args:
            queries: Rotated queries (B, H, T, d) of each scale.
            keys: Rotated keys (B, H, T, d) of each scale.
            values: Values (B, H, T, d) of each scale.
            biases: (distances, G H) to add to the logits, or None. On CUDA their gradient is
                nondeterministic.

        Returns:
            (B, T, G H, d).
        """

        def with_bias(score: Tensor, _row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            assert biases is not None
            return score + biases[(query - key).clamp(0, biases.shape[0] - 1), head]

        attended = flex_attention(
            torch.cat(list(queries), dim=1),
            torch.cat(list(keys), dim=1),
            torch.cat(list(values), dim=1),
            score_mod=None if biases is None else with_bias,
            block_mask=self.mask,
            scale=self.softmax_scale,
            kernel_options=None if biases is None else BIASED_KERNEL,
        )
        return attended.transpose(1, 2)
