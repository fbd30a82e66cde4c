"""Decoders for the benchmark: models with and without cache, their cache sizes and peak memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from benchmarks.peers import import_package
from benchmarks.sizes import FLOAT32_BYTES, Size
from coma_gen.generation.token_decoder import TokenDecoder
from coma_gen.model.cache import DecodeCache
from coma_gen.model.conformer import Conformer

PREFILL_CHUNK = 1024
"""Tokens per forward pass when the context is read."""


class Decoder(Protocol):
    """A decoder that has read a context."""

    batch: int
    tokens: int

    def rewind(self) -> None:
        """Resets the cache to the end of the context."""

    def decode(self) -> None:
        """Decodes `tokens` more tokens for each of the `batch` sequences."""

    def cache_bytes(self) -> int | None:
        """Returns the cache size per sequence in bytes; None without a cache."""


class Ours:
    """The conformer with its cache."""

    def __init__(self, model: Conformer, read: DecodeCache, *, batch: int, tokens: int) -> None:
        self.model, self.batch, self.tokens = model, batch, tokens
        self.start, self.step = read.select_rows([0] * batch), TokenDecoder(model)
        self.first = model.token_embedding.weight.new_zeros(batch, 1, dtype=torch.int64)
        self.state = self.start.copy()

    def rewind(self) -> None:
        """Copies the context's cache, and decodes one token so that lazily created buffers exist."""
        self.state = self.start.copy()
        self.step(self.first, self.state)

    def decode(self) -> None:
        """Decodes one token per forward pass."""
        token = self.first
        for _ in range(self.tokens):
            token = self.step(token, self.state).argmax(-1, keepdim=True)

    def cache_bytes(self) -> int:
        """Returns the bytes of the cache buffers per sequence."""
        return sum(tensor_bytes(self.state.blocks).values()) // self.batch

    def extra_bytes(self) -> int:
        """Returns the bytes that decoding needs in addition to weights and cache, for all sequences."""
        counted = tensor_bytes([*self.model.parameters(), self.state.blocks])
        return sum(
            count for at, count in tensor_bytes([vars(self.step), self.state]).items() if at not in counted
        )


class ReEncoding:
    """A model without a cache, which recomputes the whole sequence for each token."""

    batch = tokens = 1

    def __init__(self, model: nn.Module, history: Tensor) -> None:
        self.model, self.history = model, history

    def rewind(self) -> None:
        """Does nothing."""

    def decode(self) -> None:
        """Decodes one token with a forward pass over the whole sequence."""
        self.model(self.history)[:, -1].argmax(-1, keepdim=True)

    def cache_bytes(self) -> None:
        """Returns None."""


class Gpt2:
    """GPT-2 with a cache whose keys and values are random numbers: the time does not depend on them."""

    batch = 1

    def __init__(self, model: Any, length: int, *, tokens: int, runs: int, static: bool) -> None:
        self.model, self.tokens, self.length, self.static = model, tokens, length, static
        self.first = torch.zeros(1, 1, dtype=torch.int64, device=model.device)
        config, package = model.config, import_package("transformers")
        longest = self.length + runs * tokens
        self.cache: Any = (
            package.StaticCache(config=config, max_cache_len=longest)
            if static
            else package.DynamicCache(config=config)
        )
        shape = (1, config.n_head, self.length, config.n_embd // config.n_head)
        for layer in range(config.n_layer):
            keys, values = (torch.randn(shape, device=model.device) for _ in range(2))
            self.cache.update(keys, values, layer)

    def rewind(self) -> None:
        """Crops the cache to the context; a static one is left, since its cost depends on its full length."""
        surplus = int(self.cache.get_seq_length()) - self.length
        if surplus and not self.static:
            self.cache.crop(-surplus)

    def decode(self) -> None:
        """Decodes one token per forward pass."""
        token = self.first
        for _ in range(self.tokens):
            output = self.model(token, past_key_values=self.cache, use_cache=True)
            token = output.logits[:, -1].argmax(-1, keepdim=True)

    def cache_bytes(self) -> int:
        """Returns the bytes of keys and values."""
        return sum(tensor_bytes([(layer.keys, layer.values) for layer in self.cache.layers]).values())


def weight_bytes(model: Conformer) -> int:
    """Computes the bytes of weights read per token: all but the embedding, of which one row is read."""
    numbers = sum(parameter.numel() for parameter in model.parameters())
    return FLOAT32_BYTES * (numbers - model.token_embedding.weight.numel())


def cache_bytes(size: Size, length: int) -> int:
    """Computes the cache bytes that must be read per token and sequence: visible keys and values, and the
    last inputs of the convolutions.
    """
    model = size.model
    visible = sum(min(length, window) for window in model.window_sizes)
    keys_and_values = 2 * visible * model.num_heads * model.head_dim
    convolution = (model.kernel_size - 1) * model.conv_expansion * model.dim
    return FLOAT32_BYTES * model.num_layers * (keys_and_values + convolution)


def tensor_bytes(state: Any) -> dict[int, int]:
    """Returns address -> bytes of the storages of all tensors in a nested state, each storage once."""
    if isinstance(state, Tensor):
        memory = state.untyped_storage()
        return {memory.data_ptr(): memory.nbytes()}
    parts: Iterable[Any] = ()
    if is_dataclass(state):
        parts = [getattr(state, field.name) for field in fields(state)]
    elif isinstance(state, Mapping):
        parts = state.values()
    elif isinstance(state, list | tuple):
        parts = state
    elif hasattr(state, "__dict__") and not isinstance(state, type | nn.Module):
        parts = vars(state).values()
    storages: dict[int, int] = {}
    for part in parts:
        storages |= tensor_bytes(part)
    return storages


def prefill(model: Conformer, history: Tensor) -> DecodeCache:
    """Returns the cache after a context (1, N)."""
    state = model.init_cache(1)
    for chunk in torch.split(history, PREFILL_CHUNK, dim=1):
        model(chunk, state)
    return state


def peak_growth(run: Callable[[], object], device: torch.device) -> int | None:
    """Measures the growth of peak memory (of the device, or of this process) during `run`, in bytes.

    Returns None if the system does not report it.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        return torch.cuda.max_memory_allocated(device) - before
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # resets the peak
        before = _peak_bytes()
        run()
        return _peak_bytes() - before
    except OSError:
        return None


def _peak_bytes() -> int:
    """Reads the peak resident memory of this process."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
