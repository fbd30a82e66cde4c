"""Decoders for the benchmark: models with and without cache, their cache sizes and peak memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from benchmarks.peers import imported
from benchmarks.sizes import FLOAT32_BYTES, Size
from coma_gen.generation.token_decoder import TokenDecoder
from coma_gen.model.cache import DecodeCache
from coma_gen.model.conformer import Conformer

PREFILL_CHUNK = 1024
"""Tokens of a history that are read in one forward."""


class Decoder(Protocol):
    """Something that has read a history and can go on from it."""

    batch: int
    tokens: int

    def rewind(self) -> None:
        """Goes back to the end of the history."""

    def decode(self) -> None:
        """Chooses `tokens` more tokens for each of the `batch` sequences."""

    def remembered(self) -> int | None:
        """Bytes of what it keeps of one sequence."""


class Ours:
    """The conformer with its state."""

    def __init__(self, model: Conformer, read: DecodeCache, *, batch: int, tokens: int) -> None:
        self.model, self.batch, self.tokens = model, batch, tokens
        self.start, self.step = read.select_rows([0] * batch), TokenDecoder(model)
        self.first = model.token_embedding.weight.new_zeros(batch, 1, dtype=torch.int64)
        self.state = self.start.copy()

    def rewind(self) -> None:
        """Takes the history's state again, and a token, so that what is made once is there."""
        self.state = self.start.copy()
        self.step(self.first, self.state)

    def decode(self) -> None:
        """One token a forward."""
        token = self.first
        for _ in range(self.tokens):
            token = self.step(token, self.state).argmax(-1, keepdim=True)

    def remembered(self) -> int:
        """Bytes of the state's buffers."""
        return sum(tensor_bytes(self.state.blocks).values()) // self.batch

    def beside_weights(self) -> int:
        """Bytes that decoding needs once, for all sequences, beside the weights."""
        counted = tensor_bytes([*self.model.parameters(), self.state.blocks])
        return sum(
            count for at, count in tensor_bytes([vars(self.step), self.state]).items() if at not in counted
        )


class ReEncoding:
    """A model without a state: the whole sequence, once for each token."""

    batch = tokens = 1

    def __init__(self, model: nn.Module, history: Tensor) -> None:
        self.model, self.history = model, history

    def rewind(self) -> None:
        """Nothing is kept."""

    def decode(self) -> None:
        """One token for one forward of everything."""
        self.model(self.history)[:, -1].argmax(-1, keepdim=True)

    def remembered(self) -> None:
        """Nothing."""


class Gpt2:
    """GPT-2 with a cache whose keys and values are random numbers: the time does not depend on them."""

    batch = 1

    def __init__(self, model: Any, length: int, *, tokens: int, runs: int, static: bool) -> None:
        self.model, self.tokens, self.length, self.static = model, tokens, length, static
        self.first = torch.zeros(1, 1, dtype=torch.int64, device=model.device)
        config, package = model.config, imported("transformers")
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
        """Cuts the cache to the history; a static one goes on, since its cost is that of its full length."""
        surplus = int(self.cache.get_seq_length()) - self.length
        if surplus and not self.static:
            self.cache.crop(-surplus)

    def decode(self) -> None:
        """One token a forward."""
        token = self.first
        for _ in range(self.tokens):
            output = self.model(token, past_key_values=self.cache, use_cache=True)
            token = output.logits[:, -1].argmax(-1, keepdim=True)

    def remembered(self) -> int:
        """Bytes of the keys and values."""
        return sum(tensor_bytes([(layer.keys, layer.values) for layer in self.cache.layers]).values())


def weight_bytes(model: Conformer) -> int:
    """Bytes of the weights that every token reads: all but the embedding, of which it reads one row."""
    numbers = sum(parameter.numel() for parameter in model.parameters())
    return FLOAT32_BYTES * (numbers - model.token_embedding.weight.numel())


def remembered_bytes(size: Size, length: int) -> int:
    """Bytes that a token must read of what one sequence remembers: the keys and values it sees, and the last
    inputs of the convolutions.
    """
    model = size.model
    visible = sum(min(length, window) for window in model.window_sizes)
    keys_and_values = 2 * visible * model.num_heads * model.head_dim
    convolution = (model.kernel_size - 1) * model.conv_expansion * model.dim
    return FLOAT32_BYTES * model.num_layers * (keys_and_values + convolution)


def tensor_bytes(state: Any) -> dict[int, int]:
    """Address -> bytes of every memory that the tensors in a state lie in, each counted once."""
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
    found: dict[int, int] = {}
    for part in parts:
        found |= tensor_bytes(part)
    return found


def prefilled(model: Conformer, history: Tensor) -> DecodeCache:
    """The state after a history (1, N)."""
    state = model.init_cache(1)
    for chunk in torch.split(history, PREFILL_CHUNK, dim=1):
        model(chunk, state)
    return state


def peak_growth(run: Callable[[], object], device: torch.device) -> int | None:
    """Bytes by which `run` lifts the peak memory, the device's or this process's, above what is held before;
    None where the system does not tell.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        held = torch.cuda.memory_allocated(device)
        run()
        return torch.cuda.max_memory_allocated(device) - held
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak starts anew from here
        before = _peak_bytes()
        run()
        return _peak_bytes() - before
    except OSError:
        return None


def _peak_bytes() -> int:
    """The highest that this process's memory has been."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
