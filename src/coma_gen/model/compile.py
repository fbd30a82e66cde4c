"""Compiles the training path of the model with torch.compile: the same function in fewer passes over memory.

The compiled region is small and shared by all blocks, so it compiles once. On a GPU it is a block, whose
attention becomes one FlexAttention call; on a CPU it is the projection of an attention with its
normalization and rotation, since the rest is as fast in eager mode (measurements in docs/log.md). Only
training is compiled; scoring and decoding take no gradients and run eagerly.

Parameters, their names and saved files are unchanged. Before the first step a warm-up pass runs forward and
backward (backward is compiled when it first runs), which shows whether the compiler works here. If it fails,
a warning is logged and training runs eagerly. Later failures are raised.
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
    """A method that runs compiled when gradients are enabled, and eagerly otherwise.

    Args:
        plain: The eager method.
    """

    def __init__(self, plain: Callable[..., Any]) -> None:
        self.plain = plain
        self.fast: Callable[..., Any] | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the compiled or the eager method."""
        if not torch.is_grad_enabled():
            return self.plain(*args, **kwargs)
        if self.fast is None:
            # Eager random numbers, so that dropout masks are those of the eager path.
            options: dict[str, Any] = {"fallback_random": True, "deterministic": True}
            self.fast = torch.compile(self.plain, dynamic=False, options=options)
        return self.fast(*args, **kwargs)


def compile_model(
    model: Conformer, *, length: int, device: torch.device, warm_up: Callable[[], object]
) -> bool:
    """Compiles the model's training path in place, which takes up to a minute.

    Args:
        model: The model in training mode, on its device, before any DistributedDataParallel wrapper.
        length: Number of tokens of a training window.
        device: Device of the model.
        warm_up: Runs a forward and a backward pass with the shapes of training.

    Returns:
        Whether training runs compiled; if not, a warning states the reason.

    Raises:
        MemoryError, RuntimeError: If memory runs out in `warm_up`, which it would without a compiler, too.
    """
    for table in (positions.rotation_table, positions.whole_table):
        torch.compiler.assume_constant_result(table)  # type: ignore[no-untyped-call]
    replaced = _replace_methods(model, device)
    if device.type == "cuda":
        _use_flex_attention(model, length, device)
    try:
        warm_up()
    except Exception as error:  # compilers raise anything; the eager path raises our own errors again
        if memory_fault(error):
            raise
        _restore_methods(model, replaced)
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        logger.warning("train.compile: torch cannot compile here; training runs in eager mode. %s", reason)
        return False
    return True


def _replace_methods(model: Conformer, device: torch.device) -> list[tuple[nn.Module, str]]:
    """Replaces one method of the modules to compile; returns (module, method name) pairs."""
    kind, name = (Block, "forward") if device.type == "cuda" else (MultiScaleAttention, "project")
    chosen = [module for module in model.modules() if isinstance(module, kind)]
    for module in chosen:
        setattr(module, name, Compiled(getattr(module, name)))
    return [(module, name) for module in chosen]


def _restore_methods(model: Conformer, replaced: list[tuple[nn.Module, str]]) -> None:
    """Undoes `compile_model` and clears gradients of the warm-up pass."""
    for module, name in replaced:
        delattr(module, name)
    for attention in _attentions(model):
        attention.flex = None
    model.zero_grad(set_to_none=True)


def _use_flex_attention(model: Conformer, length: int, device: torch.device) -> None:
    """Sets up FlexAttention in each attention; logs a warning with the reason where it is unavailable."""
    obstacles = set()
    for attention in _attentions(model):
        obstacle = flex_obstacle(attention, length)
        if obstacle is None:
            attention.flex = _build_flex_band(attention, length, device)
        else:
            obstacles.add(obstacle)
    for obstacle in sorted(obstacles):
        logger.warning(
            "train.compile: no FlexAttention, so local attention is several times slower: %s", obstacle
        )


def flex_obstacle(attention: MultiScaleAttention, length: int) -> str | None:
    """Returns why an attention cannot process windows of `length` tokens with FlexAttention, or None."""
    if attention.dropout > 0:
        return f"model.attention_dropout is {attention.dropout:g}, not 0"
    longest = attention.max_rotated_length
    if longest is not None and length > longest:
        return f"train.seq_len is {length}, more than {longest} (32 times the smallest window, and 2048)"
    return None


def _attentions(model: Conformer) -> list[MultiScaleAttention]:
    return [module for module in model.modules() if isinstance(module, MultiScaleAttention)]


def _build_flex_band(attention: MultiScaleAttention, length: int, device: torch.device) -> FlexBand:
    """Builds the FlexAttention call of an attention."""
    from coma_gen.model.flex_attention import FlexBand, block_mask

    windows, heads = attention.window_sizes, attention.num_heads
    mask = block_mask(windows, num_heads=heads, length=length, device=device)
    return FlexBand(mask, length, attention.softmax_scale)
