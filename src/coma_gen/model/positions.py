"""Positions inside the attention: rotary, xPos and a dynamic bias. Each depends on distances alone.

Rotary positions (Su et al. 2021, arXiv 2104.09864) turn pairs of dimensions of queries and keys by an angle
that grows with the position, so that their product depends on the distance. xPos (Sun et al. 2022, arXiv
2212.10554) multiplies a query at m by z^(m / base) and a key at n by z^(-n / base), z < 1 for each pair: the
product decays with the distance.

Nothing here knows an absolute position. Rotations are taken about an origin amid the queries in hand, so that
an xPos power never leaves [z^32, z^-32] for a query and can only shrink for a key of the past: no length
overflows.

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
"""Queries that share an origin: angles stay small enough for float32 to be exact to 1e-4."""

MAX_DECAY_POWER = 64.0
"""Tokens that share an origin under xPos, in units of the decay base: (1.4 / 0.4) ** 32 = 3e17 each way,
far from the ends of float32."""

SHORTEST_TABLE = 256
"""Past tokens of the shortest table; longer ones double, so that few are made as history grows."""


def decay_rates(head_dim: int) -> Tensor:
    """The xPos decay z of each pair of dimensions, (d/2,) float64 in (0, 1)."""
    return (torch.arange(0, head_dim, 2, dtype=torch.float64) + 0.4 * head_dim) / (1.4 * head_dim)


def frequencies(head_dim: int) -> Tensor:
    """The angle by which each pair of dimensions turns from one token to the next, (d/2,) float64 radians."""
    return ROTARY_BASE ** (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)


@lru_cache(maxsize=64)
def _table(
    past: int, ahead: int, head_dim: int, decay_base: float | None, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, ...]:
    """Cosines and signed sines at offsets -past ... ahead - 1, for queries, then for keys, each (*, d)."""
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
            # The powers of queries far in the past would overflow; they are clamped, and no query reads them.
            factors = (growth.clamp(max=80.0).exp(), (-growth).clamp(max=80.0).exp())
            parts = [part * factors[index // 2] for index, part in enumerate(parts)]
        return tuple(part.to(device=device, dtype=dtype) for part in parts)


def rotation_table(
    past: int, ahead: int, head_dim: int, decay_base: float | None, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, ...]:
    """`_table`, as a function that compile.py can have taken for a constant."""
    return _table(past, ahead, head_dim, decay_base, device, dtype)


class _RotaryFn(torch.autograd.Function):
    """`x` with each pair of dimensions turned, and the gradient turned back, in few passes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
        ctx.save_for_backward(cosines, sines)
        half = x.shape[-1] // 2
        turned = x * cosines
        turned[..., :half].addcmul_(x[..., half:], sines[..., :half])
        turned[..., half:].addcmul_(x[..., :half], sines[..., half:])
        return turned

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        cosines, sines = ctx.saved_tensors
        half = gradient.shape[-1] // 2
        back = gradient * cosines
        back[..., half:].addcmul_(gradient[..., :half], sines[..., :half])
        back[..., :half].addcmul_(gradient[..., half:], sines[..., half:])
        return back, None, None


def _turned(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """`x` (*, d) with the pair (i, i + d/2) turned by the angle i of its token; tables broadcast to it."""
    x = x.to(cosines.dtype)
    if torch.compiler.is_compiling():
        (first, second), (cos, other_cos), (sin, other_sin) = (
            part.chunk(2, dim=-1) for part in (x, cosines, sines)
        )
        return torch.cat((first * cos + second * sin, second * other_cos + first * other_sin), dim=-1)
    turned: Tensor = _RotaryFn.apply(x, cosines, sines)  # type: ignore[no-untyped-call]
    return turned


@dataclass(frozen=True)
class Rotation:
    """Turns queries and keys by their positions.

    Attributes:
        head_dim: width of a head; even.
        decay_base: xPos decay base in tokens; None for plain rotary positions.
    """

    head_dim: int
    decay_base: float | None = None

    def __post_init__(self) -> None:
        if self.head_dim % 2:
            raise ValueError(f"rotation needs an even head_dim, got {self.head_dim}")

    @property
    def max_queries(self) -> int:
        """Queries that `rotate` may take at once."""
        if self.decay_base is None:
            return MAX_ROTATED_QUERIES
        return max(1, min(MAX_ROTATED_QUERIES, int(MAX_DECAY_POWER * self.decay_base)))

    def rotate(self, queries: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        """Turns both about an origin amid the queries.

        Args:
            queries: (B, H, T, d), T at most `max_queries`.
            keys: (B, H, N, d); the last T are the queries' own tokens.

        Returns:
            The turned queries and keys, in float32 or better.
        """
        num_queries, num_keys = queries.shape[-2], keys.shape[-2]
        dtype = torch.promote_types(queries.dtype, torch.float32)
        query_cos, query_sin, key_cos, key_sin = self.chunk_tables(
            num_queries, num_keys, device=queries.device, dtype=dtype
        )
        return _turned(queries, query_cos, query_sin), _turned(keys, key_cos, key_sin)

    def chunk_tables(
        self, num_queries: int, num_keys: int, *, device: torch.device, dtype: torch.dtype
    ) -> tuple[Tensor, ...]:
        """Cosines and signed sines of T queries, then of N keys, about an origin amid the queries, (*, d)."""
        ahead = num_queries - num_queries // 2
        past = SHORTEST_TABLE
        while past < num_keys - ahead:
            past *= 2
        table = rotation_table(past, ahead, self.head_dim, self.decay_base, device, dtype)
        return *(part[-num_queries:] for part in table[:2]), *(part[-num_keys:] for part in table[2:])

    def tables(self, first: int, last: int, *, like: Tensor) -> tuple[Tensor, ...]:
        """Cosines and signed sines of queries, then of keys, at positions first ... last - 1 from an origin.

        Args:
            first: of either sign.
            last: at most `max_queries` / 2.
            like: gives device and precision.

        Returns:
            Four tensors (last - first, d), in float32 or better.
        """
        past, ahead = SHORTEST_TABLE, SHORTEST_TABLE
        while past < -first:
            past *= 2
        while ahead < last:
            ahead *= 2
        dtype = torch.promote_types(like.dtype, torch.float32)
        table = _table(past, ahead, self.head_dim, self.decay_base, like.device, dtype)
        return tuple(part[past + first : past + last] for part in table)

    def turn(self, keys: Tensor, *, first: int) -> Tensor:
        """Keys (B, H, N, d), turned, the positions first, first + 1, ... from the origin being theirs."""
        *_, cosines, sines = self.tables(first, first + keys.shape[2], like=keys)
        return _turned(keys, cosines, sines)

    def turn_back(self, keys: Tensor, *, first: int) -> Tensor:
        """Keys as they were before `turn`."""
        cosines, sines, *_ = self.tables(first, first + keys.shape[2], like=keys)
        return _turned(keys, cosines, -sines)

    def move(self, keys: Tensor, *, shift: int) -> Tensor:
        """Turned keys for an origin that lies so many positions later."""
        *_, cosines, sines = self.tables(-shift, 1 - shift, like=keys)
        return _turned(keys, cosines, sines)


Shape = tuple[int, float | None]
"""A rotation's head_dim and decay base, which torch's compiler takes as constants; it takes no dataclass."""


@lru_cache(maxsize=16)
def _whole_table(
    shapes: tuple[Shape, ...], length: int, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Cosines and signed sines of each scale's queries, then of its keys, each (T, 2, G, 1, d)."""
    with torch.inference_mode(False), torch.no_grad():
        rotations = [Rotation(*shape) for shape in shapes]
        tables = [rotation.chunk_tables(length, length, device=device, dtype=dtype) for rotation in rotations]
        parts = [torch.stack(part, dim=1)[:, :, None] for part in zip(*tables, strict=True)]
        return torch.stack(parts[0::2], dim=1), torch.stack(parts[1::2], dim=1)


def whole_table(
    shapes: tuple[Shape, ...], length: int, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """`_whole_table`, as a function that compile.py can have taken for a constant."""
    return _whole_table(shapes, length, device, dtype)


def turn_whole(both: Tensor, rotations: Sequence[Rotation]) -> Tensor:
    """Queries and keys (B, T, 2, G, H, d) of whole sequences, each scale turned by its rotation.

    Args:
        both: T at most the `max_queries` of every rotation.
        rotations: G.

    Returns:
        The same shape, in float32 or better.
    """
    dtype = torch.promote_types(both.dtype, torch.float32)
    shapes = tuple((rotation.head_dim, rotation.decay_base) for rotation in rotations)
    return _turned(both, *whole_table(shapes, both.shape[1], both.device, dtype))


class PositionBias(nn.Module):
    """A bias on the attention logits that depends on the distance alone.

    `forward(num_distances)` gives the biases of the distances 0 ... num_distances - 1, (num_distances, H).
    """

    def reset_parameters(self) -> None:
        """Sets parameters other than those of linear layers, which every model starts with alike."""


class DynamicPositionBias(PositionBias):
    """A small MLP from the logarithm of the distance to a number a head."""

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
        """The biases of the distances 0 ... num_distances - 1, (num_distances, H)."""
        weight = next(self.layers.parameters())
        distances = torch.arange(num_distances, device=weight.device, dtype=weight.dtype)
        with torch.autocast(weight.device.type, enabled=False):
            biases: Tensor = self.layers(torch.log1p(distances)[:, None])
        return biases


def decay_base(window: int | None) -> float:
    """The xPos decay base of an attention, in tokens."""
    return GLOBAL_DECAY_BASE if window is None else window / 2


@dataclass(frozen=True)
class Position:
    """How an attention knows distances; with neither attribute it does not.

    Attributes:
        rotation: from head_dim and the window, what turns queries and keys.
        bias: from the number of heads of all windows and the model's dim, what is added to the logits.
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
"""Value of model.attention_position -> what it stands for."""
