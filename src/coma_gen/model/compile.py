"""The model run through torch's compiler: the same function of the same weights, in fewer passes over memory.

What is compiled is small and shared by all blocks, so that it compiles once: on a GPU a block, whose
attention becomes one FlexAttention call; on a CPU the projection of an attention with its normalization and
rotation, for there the rest is as fast as written (docs/log.md has the measurements). Only training runs
compiled: scoring and decoding take no gradients and the plain path.

Parameters, their names and everything that is saved stay as they are. A rehearsal of both passes, before the
first step, shows whether there is a compiler and whether it can: the backward pass is compiled while it runs
for the first time. Where it fails, one line says so and the plain path goes on. What fails later is an error
like any other.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from coma_gen.core.errors import memory_fault
from coma_gen.model import positions
from coma_gen.model.attention import MultiScaleAttention
from coma_gen.model.conformer import Block, Conformer

if TYPE_CHECKING:
    from coma_gen.model.flex_attention import FlexBand

logger = logging.getLogger(__name__)


class Compiled:
    """A method that runs compiled while gradients are taken, and as written otherwise.

    Args:
        plain: the method as written.
    """

    def __init__(self, plain: Callable[..., Any]) -> None:
        self.plain = plain
        self.fast: Callable[..., Any] | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the method returns."""
        if not torch.is_grad_enabled():
            return self.plain(*args, **kwargs)
        if self.fast is None:
            # As the plain path draws its random numbers, so that dropouts are the same.
            options: dict[str, Any] = {"fallback_random": True, "deterministic": True}
            self.fast = torch.compile(self.plain, dynamic=False, options=options)
        return self.fast(*args, **kwargs)


def compile_model(
    model: Conformer, *, length: int, device: torch.device, rehearse: Callable[[], object]
) -> bool:
    """Has the model's training run compiled, which takes up to a minute.

    Args:
        model: in training mode, on its device, and not yet wrapped for several of them.
        length: tokens of a training window.
        device: where it trains.
        rehearse: takes a forward and a backward pass, of the shapes that training has.

    Returns:
        Whether it runs compiled; otherwise a warning says why.

    Raises:
        MemoryError, RuntimeError: memory ran out in the rehearsal, as it would have without a compiler.
    """
    for table in (positions.rotation_table, positions.whole_table):
        torch.compiler.assume_constant_result(table)  # type: ignore[no-untyped-call]
    replaced = _replace_methods(model, device)
    if device.type == "cuda":
        _use_flex_attention(model, length, device)
    try:
        rehearse()
    except Exception as error:  # whatever a compiler may fail with; the plain path raises what is ours
        if memory_fault(error):
            raise
        _restore_methods(model, replaced)
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        logger.warning("train.compile: torch cannot compile here, going on without. %s", reason)
        return False
    return True


def _replace_methods(model: Conformer, device: torch.device) -> list[tuple[nn.Module, str]]:
    """Has modules run a method of theirs compiled; returns which."""
    kind, name = (Block, "forward") if device.type == "cuda" else (MultiScaleAttention, "project")
    chosen = [module for module in model.modules() if isinstance(module, kind)]
    for module in chosen:
        setattr(module, name, Compiled(getattr(module, name)))
    return [(module, name) for module in chosen]


def _restore_methods(model: Conformer, replaced: list[tuple[nn.Module, str]]) -> None:
    """Undoes what `compile_model` did, and drops the gradient that a rehearsal may have left."""
    for module, name in replaced:
        delattr(module, name)
    for attention in _attentions(model):
        attention.flex = None
    model.zero_grad(set_to_none=True)


def _use_flex_attention(model: Conformer, length: int, device: torch.device) -> None:
    """Gives each attention its bands as one call; where that cannot be, a line says why."""
    obstacles = set()
    for attention in _attentions(model):
        obstacle = flex_obstacle(attention, length)
        if obstacle is None:
            attention.flex = _flex_band(attention, length, device)
        else:
            obstacles.add(obstacle)
    for obstacle in sorted(obstacles):
        logger.warning(
            "train.compile: no FlexAttention, but attention in bands, several times slower: %s", obstacle
        )


def flex_obstacle(attention: MultiScaleAttention, length: int) -> str | None:
    """Why an attention cannot attend to whole windows of `length` tokens in one FlexAttention call, if so."""
    if attention.dropout > 0:
        return f"model.attention_dropout is {attention.dropout:g}, not 0"
    longest = attention.longest_turn
    if longest is not None and length > longest:
        return f"train.seq_len is {length}, more than {longest} (32 times the smallest window, and 2048)"
    return None


def _attentions(model: Conformer) -> list[MultiScaleAttention]:
    return [module for module in model.modules() if isinstance(module, MultiScaleAttention)]


def _flex_band(attention: MultiScaleAttention, length: int, device: torch.device) -> FlexBand:
    """Its bands in one call."""
    from coma_gen.model.flex_attention import FlexBand, block_mask

    windows, heads = attention.window_sizes, attention.num_heads
    mask = block_mask(windows, num_heads=heads, length=length, device=device)
    return FlexBand(mask, length, attention.softmax_scale)
