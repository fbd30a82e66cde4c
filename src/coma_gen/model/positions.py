"""Relative positions in attention: rotary, xPos and a dynamic bias.

Rotary positions (Su et al. 2021, arXiv 2104.09864) rotate pairs of dimensions of queries and keys by an angle
proportional to the position, so that their product depends on the distance. xPos (Sun et al. 2022, arXiv
2212.10554) multiplies a query at m by z^(m / base) and a key at n by z^(-n / base), with z < 1 for each pair,
so that the product decays with the distance.

No absolute positions are used. Rotations are relative to an origin in the middle of the current queries, so
xPos powers stay within [z^32, z^-32] for queries and only shrink for past keys: sequences of any length do
not overflow.

Shapes: B batch, H heads, T queries, N keys (the last T of them are the queries' own tokens), d head dim.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

ROTARY_BASE = 10_000.0
"""Longest wavelength of the rotation, as a multiple of 2 pi tokens."""

GLOBAL_DECAY_BASE = 512.0
"""xPos decay base, in tokens, of an attention without a window (the value of the paper)."""

MAX_ROTATED_QUERIES = 2048
"""Maximum number of queries per origin; angles are then exact to 1e-4 in float32."""

MAX_DECAY_POWER = 64.0
"""Maximum number of tokens per origin under xPos, in units of the decay base. Factors reach
(1.4 / 0.4) ** 32 = 3e17 and its inverse, well within the range of float32."""

MIN_TABLE_SIZE = 256
"""Past tokens of the smallest table; sizes double, so that few tables are built as the history grows."""


def decay_rates(head_dim: int) -> Tensor:
    """Returns the xPos decay z of each pair of dimensions, (d/2,) float64 in (0, 1)."""
    return (torch.arange(0, head_dim, 2, dtype=torch.float64) + 0.4 * head_dim) / (1.4 * head_dim)


def frequencies(head_dim: int) -> Tensor:
    """Returns the rotation angle per token of each pair of dimensions, (d/2,) float64 radians."""
    return ROTARY_BASE ** (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)


@lru_cache(maxsize=64)
def _table(
    past: int, ahead: int, head_dim: int, decay_base: float | None, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, ...]:
    """Computes cosines and signed sines (*, d) at offsets -past ... ahead - 1 for queries, then keys."""
    with torch.inference_mode(False), torch.no_grad():
        offsets = torch.arange(-past, ahead, dtype=torch.float64)[:, None]
        angles = offsets * frequencies(head_dim)
        cosines, sines = (
            torch.cat((angles.cos(),) * 2, dim=1),
            torch.cat((-angles.sin(), angles.sin()), dim=1),
        )
        parts = [cosines, sines, cosines, sines]
        if decay_base is not None:
            growth = torch.cat((decay_rates(head_dim).log() * (offsets / decay_base),) * 2, dim=1)
            # Clamped, since powers of queries far in the past would overflow; no query uses these entries.
            factors = (growth.clamp(max=80.0).exp(), (-growth).clamp(max=80.0).exp())
            parts = [part * factors[index // 2] for index, part in enumerate(parts)]
        return tuple(part.to(device=device, dtype=dtype) for part in parts)


def rotation_table(
    past: int, ahead: int, head_dim: int, decay_base: float | None, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, ...]:
    """`_table` as a plain function, which compile.py marks as a constant for torch.compile."""
    return _table(past, ahead, head_dim, decay_base, device, dtype)


class _RotaryFn(torch.autograd.Function):
    """Rotates each pair of dimensions of `x`, and the gradient inversely, in few passes over memory."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
        ctx.save_for_backward(cosines, sines)
        half = x.shape[-1] // 2
        rotated = x * cosines
        rotated[..., :half].addcmul_(x[..., half:], sines[..., :half])
        rotated[..., half:].addcmul_(x[..., :half], sines[..., half:])
        return rotated

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        cosines, sines = ctx.saved_tensors
        half = gradient.shape[-1] // 2
        back = gradient * cosines
        back[..., half:].addcmul_(gradient[..., :half], sines[..., :half])
        back[..., :half].addcmul_(gradient[..., half:], sines[..., half:])
        return back, None, None


def _rotate_pairs(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Rotates the pairs (i, i + d/2) of each vector of `x` (*, d); the tables broadcast to `x`."""
    x = x.to(cosines.dtype)
    if torch.compiler.is_compiling():
        (first, second), (cos, other_cos), (sin, other_sin) = (
            part.chunk(2, dim=-1) for part in (x, cosines, sines)
        )
        return torch.cat((first * cos + second * sin, second * other_cos + first * other_sin), dim=-1)
    rotated: Tensor = _RotaryFn.apply(x, cosines, sines)  # type: ignore[no-untyped-call]
    return rotated


@dataclass(frozen=True)
class Rotation:
    """Rotary position embedding of queries and keys, with xPos decay if `decay_base` is set.

    Attributes:
        head_dim: D, an even number.
        decay_base: xPos decay base in tokens; None for plain rotary positions.
    """

    head_dim: int
    decay_base: float | None = None

    def __post_init__(self) -> None:
        if self.head_dim % 2:
            raise ValueError(f"rotation needs an even head_dim, got {self.head_dim}")

    @property
    def max_queries(self) -> int:
        """Maximum number of queries that `rotate` accepts."""
        if self.decay_base is None:
            return MAX_ROTATED_QUERIES
        return max(1, min(MAX_ROTATED_QUERIES, int(MAX_DECAY_POWER * self.decay_base)))

    def rotate(self, queries: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        """Rotates both relative to an origin in the middle of the queries.

        Args:
            queries: (B, H, T, d), T at most `max_queries`.
            keys: (B, H, N, d); the last T belong to the tokens of the queries.

        Returns:
            Rotated queries and keys, at least float32.
        """
        num_queries, num_keys = queries.shape[-2], keys.shape[-2]
        dtype = torch.promote_types(queries.dtype, torch.float32)
        query_cos, query_sin, key_cos, key_sin = self.chunk_tables(
            num_queries, num_keys, device=queries.device, dtype=dtype
        )
        return _rotate_pairs(queries, query_cos, query_sin), _rotate_pairs(keys, key_cos, key_sin)

    def chunk_tables(
        self, num_queries: int, num_keys: int, *, device: torch.device, dtype: torch.dtype
    ) -> tuple[Tensor, ...]:
        """Returns cosines and signed sines (*, d) of T queries, then N keys, about the middle query."""
        ahead = num_queries - num_queries // 2
        past = MIN_TABLE_SIZE
        while past < num_keys - ahead:
            past *= 2
        table = rotation_table(past, ahead, self.head_dim, self.decay_base, device, dtype)
        return *(part[-num_queries:] for part in table[:2]), *(part[-num_keys:] for part in table[2:])

    def tables(self, first: int, last: int, *, like: Tensor) -> tuple[Tensor, ...]:
        """Returns cosines and signed sines of queries, then of keys, at offsets first ... last - 1.

        Args:
            first: First offset from the origin; may be negative.
            last: End of the offsets, at most `max_queries` / 2.
            like: Tensor that gives device and dtype.

        Returns:
            Four tensors (last - first, d), at least float32.
        """
        past, ahead = MIN_TABLE_SIZE, MIN_TABLE_SIZE
        while past < -first:
            past *= 2
        while ahead < last:
            ahead *= 2
        dtype = torch.promote_types(like.dtype, torch.float32)
        table = _table(past, ahead, self.head_dim, self.decay_base, like.device, dtype)
        return tuple(part[past + first : past + last] for part in table)

    def rotate_keys(self, keys: Tensor, *, first: int) -> Tensor:
        """Rotates keys (B, H, N, d) at the offsets first, first + 1, ... from the origin."""
        *_, cosines, sines = self.tables(first, first + keys.shape[2], like=keys)
        return _rotate_pairs(keys, cosines, sines)

    def unrotate_keys(self, keys: Tensor, *, first: int) -> Tensor:
        """Inverts `rotate_keys`."""
        cosines, sines, *_ = self.tables(first, first + keys.shape[2], like=keys)
        return _rotate_pairs(keys, cosines, -sines)

    def shift_origin(self, keys: Tensor, *, shift: int) -> Tensor:
        """Updates rotated keys for an origin `shift` positions later."""
        *_, cosines, sines = self.tables(-shift, 1 - shift, like=keys)
        return _rotate_pairs(keys, cosines, sines)


Shape = tuple[int, float | None]
"""A rotation's head_dim and decay base: torch.compile accepts them as constants, but not a dataclass."""


@lru_cache(maxsize=16)
def _whole_table(
    shapes: tuple[Shape, ...], length: int, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Computes cosines and signed sines (T, 2, G, 1, d) of the queries and keys of all scales."""
    with torch.inference_mode(False), torch.no_grad():
        rotations = [Rotation(*shape) for shape in shapes]
        tables = [rotation.chunk_tables(length, length, device=device, dtype=dtype) for rotation in rotations]
        parts = [torch.stack(part, dim=1)[:, :, None] for part in zip(*tables, strict=True)]
        return torch.stack(parts[0::2], dim=1), torch.stack(parts[1::2], dim=1)


def whole_table(
    shapes: tuple[Shape, ...], length: int, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """`_whole_table` as a plain function, which compile.py marks as a constant for torch.compile."""
    return _whole_table(shapes, length, device, dtype)


def rotate_sequences(both: Tensor, rotations: Sequence[Rotation]) -> Tensor:
    """Rotates queries and keys (B, T, 2, G, H, d) of whole sequences, each scale by its own rotation.

    Args:
        both: Queries and keys, with T at most the `max_queries` of every rotation.
        rotations: One per scale.

    Returns:
        Tensor of the same shape, at least float32.
    """
    dtype = torch.promote_types(both.dtype, torch.float32)
    shapes = tuple((rotation.head_dim, rotation.decay_base) for rotation in rotations)
    return _rotate_pairs(both, *whole_table(shapes, both.shape[1], both.device, dtype))


class PositionBias(nn.Module):
    """Bias of the attention logits as a function of the distance.

    `forward(num_distances)` returns the biases (num_distances, H) of the distances 0 ... num_distances - 1.
    """

    def reset_parameters(self) -> None:
        """Initializes parameters other than those of linear layers, which `initialize` handles."""


class DynamicPositionBias(PositionBias):
    """MLP from the log distance to one bias per head."""

    def __init__(self, *, num_heads: int, hidden_dim: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(1, hidden_dim),
            nn.SiLU(),
            nn.Linear(hidden_dim, hidden_dim),
            nn.SiLU(),
            nn.Linear(hidden_dim, num_heads),
        )

    def forward(self, num_distances: int) -> Tensor:
        """Returns the biases of the distances 0 ... num_distances - 1, (num_distances, H)."""
        weight = next(self.layers.parameters())
        distances = torch.arange(num_distances, device=weight.device, dtype=weight.dtype)
        with torch.autocast(weight.device.type, enabled=False):
            biases: Tensor = self.layers(torch.log1p(distances)[:, None])
        return biases


def decay_base(window: int | None) -> float:
    """Returns the xPos decay base of an attention, in tokens."""
    return GLOBAL_DECAY_BASE if window is None else window / 2


@dataclass(frozen=True)
class Position:
    """Relative position scheme of an attention: a rotation, a bias, or neither.

    Attributes:
        rotation: Builds the rotation from head_dim and the window.
        bias: Builds the bias from the number of heads of all scales and the model dim.
    """

    rotation: Callable[[int, int | None], Rotation] | None = None
    bias: Callable[[int, int], PositionBias] | None = None


POSITIONS: dict[str, Position] = {
    "xpos": Position(rotation=lambda head_dim, window: Rotation(head_dim, decay_base(window))),
    "rotary": Position(rotation=lambda head_dim, _window: Rotation(head_dim)),
    "dynamic": Position(
        bias=lambda heads, dim: DynamicPositionBias(num_heads=heads, hidden_dim=max(8, dim // 4))
    ),
    "none": Position(),
}
"""Value of `model.attention_position` -> position scheme."""
