"""The model run through torch's compiler: the same function of the same weights, in fewer passes over memory.

What is compiled is small and shared by all blocks, so that it compiles once: on a GPU a block, whose
attention becomes one FlexAttention call; on a CPU the projection of an attention with its normalization and
rotation, for there the rest is as fast as written (docs/log.md has the measurements). Only training runs
compiled: scoring and decoding take no gradients and the plain path.

Parameters, their names and everything that is saved stay as they are. Where there is no compiler, or it
fails, one line says so and the plain path goes on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from coma_gen.model import positions
from coma_gen.model.attention import MultiScaleAttention
from coma_gen.model.conformer import Block, Conformer

if TYPE_CHECKING:
    from coma_gen.model.flex_attention import FlexBand

logger = logging.getLogger(__name__)


@dataclass
class Switch:
    """Whether the compiler has not failed yet; one for a whole model."""

    is_on: bool = True


class Compiled:
    """A method that runs compiled while gradients are taken, and as written otherwise.

    Args:
        plain: the method as written.
        switch: turned off, for good, by the first failure.
    """

    def __init__(self, plain: Callable[..., Any], switch: Switch) -> None:
        self.plain, self.switch = plain, switch
        self.fast: Callable[..., Any] | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the method returns."""
        if not self.switch.is_on or not torch.is_grad_enabled():
            return self.plain(*args, **kwargs)
        try:
            if self.fast is None:
                # As the plain path draws its random numbers, so that dropouts are the same.
                options: dict[str, Any] = {"fallback_random": True, "deterministic": True}
                self.fast = torch.compile(self.plain, dynamic=False, options=options)
            return self.fast(*args, **kwargs)
        except Exception as error:  # whatever a compiler may fail with; the plain path raises what is ours
            self.switch.is_on = False
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            logger.warning("train.compile: torch cannot compile here, going on without. %s", reason)
            return self.plain(*args, **kwargs)


def compile_model(model: Conformer, *, length: int, device: torch.device) -> Switch:
    """Has the model's training run compiled from its first step on, which takes up to a minute.

    Args:
        model: anywhere, and not yet wrapped for several devices.
        length: tokens of a training window.
        device: where it will train.

    Returns:
        Says whether the compiler has not failed so far.
    """
    switch = Switch()
    for table in (positions.rotation_table, positions.whole_table):
        torch.compiler.assume_constant_result(table)  # type: ignore[no-untyped-call]
    on_gpu = device.type == "cuda"
    for module in model.modules():
        if on_gpu and isinstance(module, Block):
            _replace(module, "forward", switch)
        elif not on_gpu and isinstance(module, MultiScaleAttention):
            _replace(module, "project", switch)
        elif isinstance(module, MultiScaleAttention) and module.dropout == 0:
            module.flex = _flex_band(module, length, device)
    return switch


def _replace(module: nn.Module, name: str, switch: Switch) -> None:
    """Has a module run its own method `name` compiled."""
    setattr(module, name, Compiled(getattr(module, name), switch))


def _flex_band(attention: MultiScaleAttention, length: int, device: torch.device) -> FlexBand:
    """Its bands in one call."""
    from coma_gen.model.flex_attention import FlexBand, block_mask

    windows, heads = attention.window_sizes, attention.num_heads
    mask = block_mask(windows, num_heads=heads, length=length, device=device)
    return FlexBand(mask, length, attention.softmax_scale)
