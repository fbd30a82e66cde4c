"""How fast is decoding, and how much memory does the cache need?

Measures one greedily decoded token after 128, 1,024 and 8,192 tokens: our model with its constant-size cache,
for one sequence and a batch of eight; our model and the reference model without a cache, which recompute the
whole sequence; and GPT-2 with as many parameters, with the dynamic and the static cache of transformers. The
floor is the number of bytes that must be read per token (every weight once per batch, and the cache of each
sequence) at the best rate of reading large matrices, measured between the tokens. `Linear layers
alone` are those of the model without anything else; narrow matrices make them slower than the floor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from benchmarks.decoders import (
    Decoder,
    Gpt2,
    Ours,
    ReEncoding,
    cache_bytes,
    peak_growth,
    prefill,
    weight_bytes,
)
from benchmarks.learners import conformer, plain
from benchmarks.machine import best_rate, linear_layers_alone, reading_probes
from benchmarks.peers import AbsentError, gpt2, seeded
from benchmarks.sizes import Size, sizes
from benchmarks.timing import (
    WARM_UP_ROUNDS,
    Timing,
    Variant,
    alternate,
    heading,
    milliseconds,
    parse_settings,
    percent,
    table,
    times,
)
from coma_gen.model.conformer import Conformer

HISTORIES = (128, 1024, 8192)
"""Context lengths in tokens."""
BATCHES = (1, 8)
PEER_TOKENS = 8
"""Tokens that GPT-2 decodes per measurement; fewer than ours, since all its steps do the same work."""
GROWTH_TOKENS = 256
"""Approximate number of tokens over which memory growth is measured."""
MEGABYTE = 1e6
ONE = "ours"
GPT2, GPT2_STATIC = "GPT-2, its cache", "GPT-2, static cache"
NO_CACHE = {name: f"{name}, no cache" for name in ("ours", "reference")}


@dataclass(frozen=True)
class DecodeTimings:
    """The timings of one size.

    Attributes:
        decoders: (context length, name) -> decoder.
        timings: `timing_key` of a decoder, or name of the linear layers alone -> timing.
        rate: Best read rate of the machine in bytes per second.
        device: Device of the models.
    """

    decoders: dict[tuple[int, str], Decoder]
    timings: dict[str, Timing]
    rate: float
    device: torch.device

    def seconds(self, length: int, name: str) -> float | None:
        """Returns seconds per forward pass (one token per sequence), or None if it was not measured."""
        decoder = self.decoders.get((length, name))
        return None if decoder is None else self.timings[timing_key(length, name)].median / decoder.tokens


def timing_key(length: int, name: str) -> str:
    """Returns the key of a decoder in `DecodeTimings.timings`."""
    return f"{length}/{name}"


def measure(
    size: Size,
    *,
    device: torch.device,
    rounds: int,
    tokens: int,
    histories: Sequence[int] = HISTORIES,
    longest_recomputed: int | None = None,
) -> str:
    """Computes the tables of one size.

    Args:
        size: The model size.
        device: Device of the models.
        rounds: Measurements of each decoder.
        tokens: Tokens that ours decodes per measurement; 128 include periodic work of the cache.
        histories: Context lengths, at least two, in ascending order.
        longest_recomputed: Longest context that is decoded without cache; None for all.
    """
    model, reference = conformer(size).to(device).eval(), plain(size, device).model.eval()
    runs = rounds + WARM_UP_ROUNDS[device.type]
    absent = ""
    with torch.inference_mode():
        decoders = build_ours(
            model, reference, histories, tokens=tokens, longest_recomputed=longest_recomputed
        )
        try:
            decoders |= build_gpt2(size, histories, runs=runs, device=device)
        except AbsentError as reason:
            absent = f"\n\nNot measured: {GPT2} ({reason})."
        found = time_decoders(model, decoders, rounds=rounds, device=device)
        rows = [row for length in histories for row in rows_of(length, found, model, size)]
        brief = summary(found, histories)
    head = ["after", "variant", "sequences", "ms each", "spread", "tokens/s", "of the floor", "cache, MB"]
    return "\n\n".join([table(head, rows, words=2), brief]) + absent


def build_ours(
    model: Conformer,
    reference: nn.Module,
    histories: Sequence[int],
    *,
    tokens: int,
    longest_recomputed: int | None,
) -> dict[tuple[int, str], Decoder]:
    """Builds our decoders with and without cache, and the reference: (context length, name) -> decoder."""
    decoders: dict[tuple[int, str], Decoder] = {}
    for length in histories:
        history = torch.randint(model.vocab_size, (1, length), device=model.token_embedding.weight.device)
        read = prefill(model, history)
        for batch in BATCHES:
            decoders[length, batch_name(batch)] = Ours(model, read, batch=batch, tokens=tokens)
        if longest_recomputed is None or length <= longest_recomputed:
            for name, learner in zip(NO_CACHE.values(), (model, reference), strict=True):
                decoders[length, name] = ReEncoding(learner, history)
    return decoders


def build_gpt2(
    size: Size, histories: Sequence[int], *, runs: int, device: torch.device
) -> dict[tuple[int, str], Decoder]:
    """Builds GPT-2 decoders with either cache: (context length, name) -> decoder.

    Raises:
        AbsentError: transformers is not installed.
    """
    model = seeded(lambda: gpt2(size, positions=max(histories) + runs * PEER_TOKENS)).to(device).eval()
    return {
        (length, name): Gpt2(model, length, tokens=PEER_TOKENS, runs=runs, static=name == GPT2_STATIC)
        for length in histories
        for name in (GPT2, GPT2_STATIC)
    }


def time_decoders(
    model: Conformer, decoders: dict[tuple[int, str], Decoder], *, rounds: int, device: torch.device
) -> DecodeTimings:
    """Times the decoders alternately with the linear layers alone and with reads of large matrices."""
    probes = reading_probes(bytes_read=weight_bytes(model), device=device)
    variants = {
        timing_key(*name): Variant(decoder.decode, decoder.rewind) for name, decoder in decoders.items()
    }
    variants |= {alone_name(batch): linear_layers_alone(model, rows=batch) for batch in BATCHES}
    variants |= {name: probe.variant for name, probe in probes.items()}
    timings = alternate(variants, rounds=rounds, device=device)
    return DecodeTimings(decoders, timings, best_rate(probes, timings), device)


def batch_name(batch: int) -> str:
    """Returns the name of ours for a batch size."""
    return ONE if batch == 1 else f"{ONE}, batch of {batch}"


def alone_name(batch: int) -> str:
    """Returns the name of the linear layers alone for a batch size."""
    return f"linear layers alone, {batch}"


def rows_of(length: int, found: DecodeTimings, model: Conformer, size: Size) -> list[list[str]]:
    """Returns the rows of one context length."""
    least = {
        batch: (weight_bytes(model) + batch * cache_bytes(size, length)) / found.rate for batch in BATCHES
    }
    rows = []
    for (after, name), decoder in found.decoders.items():
        if after != length:
            continue
        timing = found.timings[timing_key(length, name)]
        seconds = timing.median / decoder.tokens
        share = percent(least[decoder.batch] / seconds) if isinstance(decoder, Ours) else "-"
        speed = f"{decoder.batch / seconds:.3g}"
        numbers = [str(decoder.batch), milliseconds(seconds), percent(timing.spread), speed, share]
        rows.append([f"{length:,}", name, *numbers, megabytes(decoder.cache_bytes())])
    needed = megabytes(cache_bytes(size, length))
    for batch, seconds in least.items():
        numbers = [str(batch), milliseconds(seconds), "-", f"{batch / seconds:.3g}", "100%", needed]
        rows.append([f"{length:,}", f"floor at {found.rate / 1e9:.3g} GB/s", *numbers])
    return rows


def megabytes(count: int | None) -> str:
    """Formats bytes as megabytes."""
    return "-" if count is None else f"{count / MEGABYTE:.1f}"


def summary(found: DecodeTimings, histories: Sequence[int]) -> str:
    """Formats the main ratios, and the growth of memory while ours decodes."""
    first, before, last = histories[0], histories[-2], histories[-1]
    rows = []
    for name in (ONE, GPT2, GPT2_STATIC):
        late, early = found.seconds(last, name), found.seconds(before, name)
        if late and early:
            rows.append([f"{name}: a token after {last:,} / after {before:,}", f"{late / early:.2f}"])
    for name in (GPT2, GPT2_STATIC):
        theirs, own = found.seconds(before, name), found.seconds(before, ONE)
        if theirs and own:
            rows.append([f"after {before:,}: faster than {name}", times(theirs / own)])
    for name in NO_CACHE.values():
        rows += no_cache_ratios(found, name, first, before)
    for batch in BATCHES:
        alone, own = found.timings[alone_name(batch)].median, found.seconds(before, batch_name(batch))
        if own:
            rows.append(
                [f"after {before:,}: linear layers alone / {batch_name(batch)}", percent(alone / own)]
            )
    decoder = found.decoders[last, ONE]
    runs = max(1, GROWTH_TOKENS // decoder.tokens)

    def decode() -> None:
        for _ in range(runs):
            decoder.decode()

    growth = peak_growth(decode, found.device)
    if growth is not None:
        count = runs * decoder.tokens
        rows.append([f"growth of peak memory over {count:,} tokens", f"{growth / MEGABYTE:.1f} MB"])
    assert isinstance(decoder, Ours)
    rows.append(
        ["buffers for decoding, in addition to the weights", f"{megabytes(decoder.extra_bytes())} MB"]
    )
    return table(["summary", ""], rows)


def no_cache_ratios(found: DecodeTimings, name: str, first: int, last: int) -> list[list[str]]:
    """Computes how much faster ours is than decoding without cache.

    For `last` new tokens from nothing, the time without cache is interpolated linearly between the two
    measured lengths, and ours is the mean of both.
    """
    short, long = found.seconds(first, name), found.seconds(last, name)
    early, late = found.seconds(first, ONE), found.seconds(last, ONE)
    if not (short and long and early and late) or first == last:
        return []
    mean = short + (long - short) * ((last + 1) / 2 - first) / (last - first)
    return [
        [f"after {last:,}: faster than {name}", times(long / late)],
        [f"{last:,} new tokens from nothing: faster than {name}", times(mean / ((early + late) / 2))],
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the tables of the larger size; without `--short`, of all sizes."""
    settings = parse_settings("benchmarks.decode", str(__doc__), arguments)
    print(heading("Decoding", settings.device, ("transformers",)))
    for name, size in sizes().items():
        if settings.short and name != "36M":
            continue
        rounds, tokens = (2, 16) if settings.short else (5, 128)
        print(f"{name}: fp32, {tokens} tokens a round of ours, {rounds} rounds\n")
        longest = 1024 if settings.short else None
        text = measure(size, device=settings.device, rounds=rounds, tokens=tokens, longest_recomputed=longest)
        print(text, end="\n\n", flush=True)


if __name__ == "__main__":
    main()
