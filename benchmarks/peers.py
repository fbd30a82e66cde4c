"""Peers: plain transformers of other packages with as many parameters.

For a package that is not installed, the table shows the reason. `make bench` installs them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.sizes import Size

LOCAL_WINDOW = 256
"""Window of LocalTransformer, which has one for all layers: the middle one of ours."""


class AbsentError(Exception):
    """A variant cannot be measured on this machine; the message gives the reason."""


class Logits(nn.Module):
    """Wraps a model so that its output is its logits (B, T, V).

    Args:
        model: Any model of token ids.
        read: Extracts the logits from its output.
        options: Keyword arguments of each call.
    """

    def __init__(self, model: nn.Module, read: Callable[[Any], Any] | None = None, **options: Any) -> None:
        super().__init__()
        self.model, self.read, self.options = model, read, options

    def forward(self, input_ids: Tensor) -> Tensor:
        """(B, T) -> (B, T, V)."""
        output = self.model(input_ids, **self.options)
        logits: Tensor = output if self.read is None else self.read(output)
        return logits


def import_package(name: str) -> Any:
    """Imports a package and ignores its warnings.

    Raises:
        AbsentError: It is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return import_module(name)
    except ImportError:
        raise AbsentError(f"{name} is not installed") from None


def x_transformer(size: Size) -> nn.Module:
    """Builds x-transformers' decoder with rotary positions and torch's fused attention.

    Raises:
        AbsentError: x-transformers is not installed.
    """
    package = import_package("x_transformers")
    layers = package.Decoder(
        dim=size.model.dim,
        depth=size.peer_layers,
        heads=size.model.num_heads,
        attn_dim_head=size.model.head_dim,
        ff_mult=size.peer_ff_mults["x-transformers"],
        rotary_pos_emb=True,
        attn_flash=True,
    )
    model = package.TransformerWrapper(
        num_tokens=size.vocab_size, max_seq_len=size.tokens, attn_layers=layers, use_abs_pos_emb=False
    )
    return Logits(model)


def local_transformer(size: Size) -> nn.Module:
    """Builds local-attention's LocalTransformer with xPos and, by default, four residual streams.

    Raises:
        AbsentError: local-attention is not installed.
    """
    model = import_package("local_attention").LocalTransformer(
        num_tokens=size.vocab_size,
        max_seq_len=size.tokens,
        dim=size.model.dim,
        depth=size.peer_layers,
        heads=size.model.num_heads,
        dim_head=size.model.head_dim,
        ff_mult=size.peer_ff_mults["local-attention"],
        local_attn_window_size=min(LOCAL_WINDOW, size.tokens),
        use_xpos=True,
    )
    return Logits(model)


def gpt2(size: Size, *, positions: int) -> Any:
    """Builds GPT-2 of transformers with torch's fused attention, for sequences of at most `positions` tokens.

    Raises:
        AbsentError: transformers is not installed.
    """
    package = import_package("transformers")
    config = package.GPT2Config(
        vocab_size=size.vocab_size,
        n_positions=positions,
        n_embd=size.model.dim,
        n_layer=size.peer_layers,
        n_head=size.model.num_heads,
        n_inner=int(size.peer_ff_mults["gpt2"] * size.model.dim),
        attn_implementation="sdpa",
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=0,
    )
    return package.GPT2LMHeadModel(config)


def gpt2_logits(size: Size) -> nn.Module:
    """Builds GPT-2 as a model whose output is its logits."""
    return Logits(gpt2(size, positions=size.tokens), lambda output: output.logits, use_cache=False)


def unique_parameters(model: nn.Module) -> int:
    """Counts the trainable numbers, shared ones once."""
    return sum(parameter.numel() for parameter in model.parameters())


def seeded(build: Callable[[], nn.Module]) -> nn.Module:
    """Builds a model from the same random numbers at every call."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build()
