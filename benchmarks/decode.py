"""How fast is decoding, and how much memory does the cache need?

Measures one greedily decoded token after 128, 1,024 and 8,192 tokens: our model with its constant-size cache,
for one sequence and a batch of eight; our model and the reference model without a cache, which recompute the
whole sequence; and GPT-2 with as many parameters, with the dynamic and the static cache of transformers. The
floor is the number of bytes that must be read per token (every weight once per batch, and the cache of each
sequence) at the best rate of reading large matrices, measured between the tokens. `Its matrices alone` are
the linear layers of the model without anything else; narrow matrices make them slower than the floor.
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
    peak_growth,
    prefilled,
    remembered_bytes,
    weight_bytes,
)
from benchmarks.learners import conformer, plain
from benchmarks.machine import best_rate, own_matrices, reading_probes
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
"""Tokens before the new ones."""
BATCHES = (1, 8)
PEER_TOKENS = 8
"""Tokens that GPT-2 decodes each time; unlike ours it does the same for every one."""
GROWTH_TOKENS = 256
"""Tokens over which the growth of memory is measured, about."""
MEGABYTE = 1e6
ONE = "ours"
GPT2, GPT2_STATIC = "GPT-2, its cache", "GPT-2, static cache"
READING_AGAIN = {way: f"{way}, reading all again" for way in ("ours", "reference")}


@dataclass(frozen=True)
class Measured:
    """The timings of one size.

    Attributes:
        decoders: (history, name) -> what was timed.
        timings: by `key` of each, and of the model's matrices alone.
        rate: bytes that the machine reads a second.
        device: where it was.
    """

    decoders: dict[tuple[int, str], Decoder]
    timings: dict[str, Timing]
    rate: float
    device: torch.device

    def seconds(self, length: int, name: str) -> float | None:
        """Of one forward, so of one token of each sequence; None for what was not measured."""
        decoder = self.decoders.get((length, name))
        return None if decoder is None else self.timings[key(length, name)].median / decoder.tokens


def key(length: int, name: str) -> str:
    """What a decoder is called among all that take turns."""
    return f"{length}/{name}"


def measure(
    size: Size,
    *,
    device: torch.device,
    rounds: int,
    tokens: int,
    histories: Sequence[int] = HISTORIES,
    longest_reread: int | None = None,
) -> str:
    """The tables of one size.

    Args:
        size: the shape.
        device: where to decode.
        rounds: times each decoder is measured.
        tokens: what ours decodes each time; 128 include what is done once in so many.
        histories: tokens before them, two lengths at least, the shortest first.
        longest_reread: longest history that is read again for a token; None for all.
    """
    model, reference = conformer(size).to(device).eval(), plain(size, device).model.eval()
    runs = rounds + WARM_UP_ROUNDS[device.type]
    absent = ""
    with torch.inference_mode():
        decoders = ours(model, reference, histories, tokens=tokens, longest_reread=longest_reread)
        try:
            decoders |= peers(size, histories, runs=runs, device=device)
        except AbsentError as reason:
            absent = f"\n\nNot measured: {GPT2} ({reason})."
        found = time_decoders(model, decoders, rounds=rounds, device=device)
        rows = [row for length in histories for row in rows_of(length, found, model, size)]
        shortly = summary(found, histories)
    head = ["after", "way", "sequences", "ms each", "spread", "tokens/s", "of the floor", "MB remembered"]
    return "\n\n".join([table(head, rows, words=2), shortly]) + absent


def ours(
    model: Conformer,
    reference: nn.Module,
    histories: Sequence[int],
    *,
    tokens: int,
    longest_reread: int | None,
) -> dict[tuple[int, str], Decoder]:
    """The conformer after each history, with a state and without, and its reference, by history and name."""
    decoders: dict[tuple[int, str], Decoder] = {}
    for length in histories:
        history = torch.randint(model.vocab_size, (1, length), device=model.token_embedding.weight.device)
        read = prefilled(model, history)
        for batch in BATCHES:
            decoders[length, batched(batch)] = Ours(model, read, batch=batch, tokens=tokens)
        if longest_reread is None or length <= longest_reread:
            for way, again in zip(READING_AGAIN.values(), (model, reference), strict=True):
                decoders[length, way] = ReEncoding(again, history)
    return decoders


def peers(
    size: Size, histories: Sequence[int], *, runs: int, device: torch.device
) -> dict[tuple[int, str], Decoder]:
    """GPT-2 after each history, with either cache, by history and name.

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
) -> Measured:
    """Times the decoders in turn, and between them the reading of matrices: the model's, and large ones."""
    probes = reading_probes(bytes_read=weight_bytes(model), device=device)
    variants = {key(*name): Variant(decoder.decode, decoder.rewind) for name, decoder in decoders.items()}
    variants |= {alone_name(batch): own_matrices(model, rows=batch) for batch in BATCHES}
    variants |= {name: probe.variant for name, probe in probes.items()}
    timings = alternate(variants, rounds=rounds, device=device)
    return Measured(decoders, timings, best_rate(probes, timings), device)


def batched(batch: int) -> str:
    """The name of ours with a number of sequences side by side."""
    return ONE if batch == 1 else f"{ONE}, {batch} side by side"


def alone_name(batch: int) -> str:
    """The name of the model's matrices with nothing between them, for some sequences side by side."""
    return f"its matrices alone, {batch}"


def rows_of(length: int, found: Measured, model: Conformer, size: Size) -> list[list[str]]:
    """The lines of one history."""
    least = {
        batch: (weight_bytes(model) + batch * remembered_bytes(size, length)) / found.rate
        for batch in BATCHES
    }
    rows = []
    for (after, name), decoder in found.decoders.items():
        if after != length:
            continue
        timing = found.timings[key(length, name)]
        seconds = timing.median / decoder.tokens
        share = percent(least[decoder.batch] / seconds) if isinstance(decoder, Ours) else "-"
        speed = f"{decoder.batch / seconds:.3g}"
        numbers = [str(decoder.batch), milliseconds(seconds), percent(timing.spread), speed, share]
        rows.append([f"{length:,}", name, *numbers, megabytes(decoder.remembered())])
    needed = megabytes(remembered_bytes(size, length))
    for batch, seconds in least.items():
        numbers = [str(batch), milliseconds(seconds), "-", f"{batch / seconds:.3g}", "100%", needed]
        rows.append([f"{length:,}", f"floor at {found.rate / 1e9:.3g} GB/s", *numbers])
    return rows


def megabytes(count: int | None) -> str:
    """Bytes as millions of them."""
    return "-" if count is None else f"{count / MEGABYTE:.1f}"


def summary(found: Measured, histories: Sequence[int]) -> str:
    """What the table comes to, as ratios, and how far memory grows while ours goes on."""
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
    for way in READING_AGAIN.values():
        rows += reading_ratios(found, way, first, before)
    for batch in BATCHES:
        alone, own = found.timings[alone_name(batch)].median, found.seconds(before, batched(batch))
        if own:
            rows.append([f"after {before:,}: its matrices alone, of {batched(batch)}", percent(alone / own)])
    decoder = found.decoders[last, ONE]

    runs = max(1, GROWTH_TOKENS // decoder.tokens)

    def go_on() -> None:
        for _ in range(runs):
            decoder.decode()

    growth = peak_growth(go_on, found.device)
    if growth is not None:
        count = runs * decoder.tokens
        rows.append([f"peak memory grows over {count:,} tokens by", f"{growth / MEGABYTE:.1f} MB"])
    assert isinstance(decoder, Ours)
    rows.append(["made once for decoding, beside the weights", f"{megabytes(decoder.beside_weights())} MB"])
    return table(["in short", ""], rows)


def reading_ratios(found: Measured, way: str, first: int, last: int) -> list[list[str]]:
    """How much faster ours is than reading everything again: for a token after `last`, and for `last` new
    tokens from nothing.

    For the second, the time of reading is taken as linear in the length, by the two lengths that were
    measured, and ours as the mean of both.
    """
    short, long = found.seconds(first, way), found.seconds(last, way)
    early, late = found.seconds(first, ONE), found.seconds(last, ONE)
    if not (short and long and early and late) or first == last:
        return []
    mean = short + (long - short) * ((last + 1) / 2 - first) / (last - first)
    return [
        [f"after {last:,}: faster than {way}", times(long / late)],
        [f"{last:,} new tokens from nothing: faster than {way}", times(mean / ((early + late) / 2))],
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the tables of the larger size, and in the long form those of the smaller, too."""
    settings = parse_settings("benchmarks.decode", str(__doc__), arguments)
    print(heading("Decoding", settings.device, ("transformers",)))
    for name, size in sizes().items():
        if settings.short and name != "36M":
            continue
        rounds, tokens = (2, 16) if settings.short else (5, 128)
        print(f"{name}: fp32, {tokens} tokens a round of ours, {rounds} rounds\n")
        longest = 1024 if settings.short else None
        text = measure(size, device=settings.device, rounds=rounds, tokens=tokens, longest_reread=longest)
        print(text, end="\n\n", flush=True)


if __name__ == "__main__":
    main()
