"""What the model remembers between two chunks of a sequence, so that no token is computed twice.

An attention keeps the keys and values of the tokens its next query can see (the last `window` of each scale,
everything without a window), a convolution its last K - 1 inputs. Keys are kept as they were before any
rotation: positions are distances, taken anew for each query. Memory does not grow with the sequence unless
there are global layers.

Rows of a batch may have seen different numbers of tokens; what is kept is aligned at the newest token:

    row 0, 5 tokens seen   a b c d e
    row 1, 2 tokens seen   . . . a b      padding = (0, 3)

Shapes: B batch, H heads, d head dim, N kept tokens, C channels of the convolution, K its kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass
class KeyValues:
    """The keys and values that one scale of one attention keeps.

    Attributes:
        keys: (B, H, N, d), not rotated.
        values: (B, H, N, d).
        padding: for each row, how many of the N, the oldest, stand for no token.
    """

    keys: Tensor
    values: Tensor
    padding: tuple[int, ...]

    def extend(self, keys: Tensor, values: Tensor, *, window: int | None) -> KeyValues:
        """Takes in a chunk and keeps what the next query can see.

        Args:
            keys: (B, H, T, d) of the new tokens.
            values: (B, H, T, d).
            window: tokens that a query sees before its own; None for all.

        Returns:
            What the queries of this chunk may see: what was kept and the chunk itself.
        """
        seen = KeyValues(
            torch.cat((self.keys, keys.to(self.keys.dtype)), dim=2),
            torch.cat((self.values, values.to(self.values.dtype)), dim=2),
            self.padding,
        )
        dropped = 0 if window is None else max(0, seen.keys.shape[2] - window)
        self.keys, self.values = (part[:, :, dropped:].detach() for part in (seen.keys, seen.values))
        if window is not None and dropped > window:  # as views they would keep a long chunk's memory
            self.keys, self.values = self.keys.clone(), self.values.clone()
        self.padding = tuple(max(0, padding - dropped) for padding in self.padding)
        return seen

    def take(self, rows: Sequence[int]) -> KeyValues:
        """The rows named, in that order; a row may be named twice."""
        index = torch.tensor(list(rows), device=self.keys.device)
        return KeyValues(self.keys[index], self.values[index], tuple(self.padding[row] for row in rows))

    @staticmethod
    def joined(parts: Sequence[KeyValues]) -> KeyValues:
        """One batch of several."""
        length = max(part.keys.shape[2] for part in parts)
        missing = [length - part.keys.shape[2] for part in parts]
        return KeyValues(
            torch.cat([F.pad(part.keys, (0, 0, gap, 0)) for part, gap in zip(parts, missing, strict=True)]),
            torch.cat([F.pad(part.values, (0, 0, gap, 0)) for part, gap in zip(parts, missing, strict=True)]),
            tuple(old + gap for part, gap in zip(parts, missing, strict=True) for old in part.padding),
        )


@dataclass
class BlockState:
    """What one block keeps.

    Attributes:
        global_attention: one entry when a global layer stands before the block, otherwise none.
        attention: one entry for each scale.
        convolution: (B, K - 1, C), the last inputs of the depthwise convolution, zeros before the first
            token.
    """

    global_attention: list[KeyValues]
    attention: list[KeyValues]
    convolution: Tensor


@dataclass
class DecodingState:
    """What the whole model keeps; `Conformer.empty_state` makes one and `Conformer.forward` moves it on in
    place.

    Attributes:
        blocks: one entry for each block.
        lengths: tokens that each row has seen.
    """

    blocks: list[BlockState]
    lengths: tuple[int, ...]

    @property
    def batch(self) -> int:
        """The number of rows."""
        return len(self.lengths)

    def take(self, rows: Sequence[int]) -> DecodingState:
        """A state with the rows named, in that order: drops finished rows, repeats a prompt for several
        continuations.

        The new state shares no memory with this one.
        """
        blocks = [
            BlockState(
                [kept.take(rows) for kept in block.global_attention],
                [kept.take(rows) for kept in block.attention],
                block.convolution[torch.tensor(list(rows), device=block.convolution.device)],
            )
            for block in self.blocks
        ]
        return DecodingState(blocks, tuple(self.lengths[row] for row in rows))

    def copy(self) -> DecodingState:
        """A state that can go another way from here."""
        return self.take(range(self.batch))

    @staticmethod
    def joined(states: Sequence[DecodingState]) -> DecodingState:
        """One batch of several states of a model, such as those of prompts of different lengths."""
        blocks = [
            BlockState(
                [
                    KeyValues.joined(kept)
                    for kept in zip(*(part.global_attention for part in parts), strict=True)
                ],
                [KeyValues.joined(kept) for kept in zip(*(part.attention for part in parts), strict=True)],
                torch.cat([part.convolution for part in parts]),
            )
            for parts in zip(*(state.blocks for state in states), strict=True)
        ]
        return DecodingState(blocks, tuple(length for state in states for length in state.lengths))
