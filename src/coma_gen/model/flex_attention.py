"""The band as FlexAttention: all scales in one call, with a block mask whose window depends on the head.

    heads     0 ... H - 1   H ... 2 H - 1   ...
    window    w of scale 0  w of scale 1    ...

For CUDA, where torch compiles it into one kernel that passes over blocks outside of the band (Dong et al.
2024, arXiv 2412.05496). compile.py alone imports this module, and there only.

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
"""What biases ask of the kernels: keys and values of a single stage of the pipeline in shared memory, since
biases and their gradient take room there, too. With the library's own number of stages there is too little.
"""


def block_mask(
    window_sizes: Sequence[int | None], *, num_heads: int, length: int, device: torch.device
) -> BlockMask:
    """Which blocks of keys each head's blocks of queries see; a window of None sees all before it."""
    windows = torch.tensor([length if window is None else window for window in window_sizes], device=device)
    reach = windows.repeat_interleave(num_heads)

    def is_visible(_row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (query >= key) & (query - key <= reach[head])

    return create_block_mask(
        is_visible, B=None, H=reach.numel(), Q_LEN=length, KV_LEN=length, device=str(device)
    )


@dataclass(frozen=True)
class FlexBand:
    """Attention of whole sequences of one length.

    Attributes:
        mask: of `block_mask`, for all scales.
        length: T.
        softmax_scale: what the products are multiplied by.
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
            queries: of each scale, (B, H, T, d), rotated.
            keys: of each scale, (B, H, T, d), rotated.
            values: of each scale, (B, H, T, d).
            biases: (distances, G H) to add to the logits, or None. On CUDA their gradient is summed in no
                fixed order.

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
