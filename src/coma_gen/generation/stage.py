"""The stage `sample`: music from nothing and from test prompts, as MIDI files with their settings beside
them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from coma_gen.config.schema import SampleParams
from coma_gen.core.artifact import verify_artifact
from coma_gen.core.io import atomic_dir, write_atomic, write_json
from coma_gen.core.parallel import map_prepared
from coma_gen.corpus.read import read_performance
from coma_gen.corpus.table import Performance, read_table
from coma_gen.generation.generate import Continuation, generate_batch
from coma_gen.generation.music_generator import MusicGenerator
from coma_gen.generation.sampling import SamplingParams
from coma_gen.midi.io import midi_bytes
from coma_gen.midi.notes import Notes
from coma_gen.model.device import choose_device, deterministic

INDEX = "samples.json"
SIDE_BY_SIDE = 16
"""Samples that one process draws at a time: fewer would each wait as long for their next token."""


@dataclass(frozen=True)
class SampleSpec:
    """One sample to be written: its name, and what it continues."""

    name: str
    prompt: Notes | None
    source: Performance | None


def excerpt(notes: Notes, start: float, seconds: float) -> Notes:
    """What begins in the `seconds` after the first note at or after `start`, counted from that note.

    Notes and the pedal keep their whole lengths: what a prompt's last notes sound like does not depend on
    where it was cut.
    """
    later = notes.onset[notes.onset >= start]
    first = float(later[0]) if len(later) else 0.0
    return notes.between(first, np.inf).shifted(-first).until(seconds)


def evenly_spaced(count: int, total: int) -> list[int]:
    """`count` indices below `total`, from the first on, as far apart as can be; indices repeat when there
    are fewer.
    """
    return [int(index) for index in np.floor(np.arange(count) * total / count)]


def write_samples(
    params: SampleParams,
    model: Path,
    split: Path,
    corpus: Path,
    destination: Path,
    *,
    device: str,
    threads: int,
    processes: int = 1,
) -> list[Continuation]:
    """Writes `<name>.mid` for every sample, and `samples.json` with what each is.

    Args:
        params: the sample section.
        model: what the train stage wrote.
        split: the split stage's folder; prompts are taken from its test performances, evenly over the table.
        corpus: the MIDI files.
        destination: the folder to write.
        device: as `runtime.device`.
        threads: as `runtime.threads`, of each process.
        processes: that share the work; the result does not depend on it.

    Returns:
        The pieces, in the order of the files.
    """
    verify_artifact(split, kind="split")
    table = read_table(split / "test.csv")
    wanted = [SampleSpec(f"unprompted-{number + 1:02d}", None, None) for number in range(params.unprompted)]
    indices = evenly_spaced(params.prompted, len(table))
    for number, index in enumerate(indices):
        notes = read_performance(corpus, table[index])
        start = notes.end * indices[:number].count(index) / indices.count(index)
        prompt = excerpt(notes, start, params.prompt_seconds)
        wanted.append(SampleSpec(f"continued-{number + 1:02d}", prompt, table[index]))
    groups = [
        range(first, min(first + SIDE_BY_SIDE, len(wanted))) for first in range(0, len(wanted), SIDE_BY_SIDE)
    ]
    drawn = map_prepared(
        partial(_draw, params, len(groups) == 1),
        [{number: wanted[number].prompt for number in group} for group in groups],
        costs=[float(len(group)) for group in groups],
        prepare=partial(_prepared, model, device, threads),
        processes=processes,
        desc="sample",
        unit="piece",
    )
    pieces = [piece for group in drawn for piece in group]
    with atomic_dir(destination) as folder:
        for sample, piece in zip(wanted, pieces, strict=True):
            write_atomic(folder / f"{sample.name}.mid", midi_bytes(piece.notes))
        described = [_described(sample, piece) for sample, piece in zip(wanted, pieces, strict=True)]
        write_json(folder / INDEX, {"settings": params.model_dump(mode="json"), "samples": described})
    return pieces


@contextmanager
def _prepared(model: Path, device: str, threads: int) -> Iterator[MusicGenerator]:
    """Reads the model; what it writes is the same again within."""
    with deterministic(threads, choose_device(device)):
        yield MusicGenerator.load(model, device=device)


def _draw(
    params: SampleParams, alone: bool, composer: MusicGenerator, prompts: dict[int, Notes | None]
) -> list[Continuation]:
    """The samples of some numbers; a bar of their own where there are no others."""
    return generate_batch(
        composer,
        list(prompts.values()),
        seconds=params.seconds,
        choice=SamplingParams.of(params),
        seed=params.seed,
        max_tokens=params.max_tokens,
        max_empty_bars=params.max_empty_bars,
        max_rewinds=params.max_rewinds,
        desc="sample" if alone else None,
        numbers=list(prompts),
    )


def _described(sample: SampleSpec, piece: Continuation) -> dict[str, Any]:
    described: dict[str, Any] = {"name": sample.name, "notes": len(piece.notes), "seconds": piece.notes.end}
    described |= {
        "tokens": piece.tokens,
        "prompt_seconds": piece.prompt_end,
        "reached_its_time": piece.reached,
        "rewinds": piece.rewinds,
        "tokens_redrawn": piece.redrawn,
    }
    if sample.source is not None:
        described |= {"composer": sample.source.composer, "title": sample.source.title}
    return described
