"""The stage `sample`: generates unprompted MIDI files and continuations of test prompts, with an index."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
from coma_gen.generation.continuation import Continuation
from coma_gen.generation.controls import Controls
from coma_gen.generation.generate import generate_batch
from coma_gen.generation.music_generator import MusicGenerator
from coma_gen.generation.sampling import SamplingParams
from coma_gen.midi.io import midi_bytes
from coma_gen.midi.notes import Notes
from coma_gen.model.device import choose_device, deterministic

INDEX = "samples.json"
BATCH_SIZE = 16
"""Samples per batch and process: a smaller batch takes as long per token."""


@dataclass(frozen=True)
class SampleSpec:
    """A sample to generate: its name, its prompt and the performance that the prompt is from."""

    name: str
    prompt: Notes | None
    source: Performance | None


def excerpt(notes: Notes, start: float, seconds: float) -> Notes:
    """Returns the notes within `seconds` of the first note at or after `start`, relative to that note.

    Notes and pedal keep their full lengths, so the sound of the last notes does not depend on the cut.
    """
    later = notes.onset[notes.onset >= start]
    first = float(later[0]) if len(later) else 0.0
    return notes.between(first, np.inf).shifted(-first).until(seconds)


def evenly_spaced(count: int, total: int) -> list[int]:
    """Returns `count` evenly spaced indices below `total`, from 0; they repeat where `total` is smaller."""
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
    """Writes `<name>.mid` for every sample, and `samples.json` with the settings and a description of each.

    Args:
        params: The sample section.
        model: Folder of the train stage.
        split: Folder of the split stage; prompts are spaced evenly over the table of its test performances.
        corpus: Folder of the MIDI files.
        destination: Folder to write.
        device: `runtime.device`.
        threads: `runtime.threads`, for each process.
        processes: Number of processes; the result does not depend on it.

    Returns:
        The pieces, in the order of the files.
    """
    verify_artifact(split, kind="split")
    table = read_table(split / "test.csv")
    specs = [SampleSpec(f"unprompted-{number + 1:02d}", None, None) for number in range(params.unprompted)]
    indices = evenly_spaced(params.prompted, len(table))
    for number, index in enumerate(indices):
        notes = read_performance(corpus, table[index])
        start = notes.end * indices[:number].count(index) / indices.count(index)
        prompt = excerpt(notes, start, params.prompt_seconds)
        specs.append(SampleSpec(f"continued-{number + 1:02d}", prompt, table[index]))
    pieces = generate_samples(
        params,
        model,
        [spec.prompt for spec in specs],
        device=device,
        threads=threads,
        processes=processes,
        desc="sample",
    )
    with atomic_dir(destination) as folder:
        for spec, piece in zip(specs, pieces, strict=True):
            write_atomic(folder / f"{spec.name}.mid", midi_bytes(piece.notes))
        described = [_describe_sample(spec, piece) for spec, piece in zip(specs, pieces, strict=True)]
        write_json(folder / INDEX, {"settings": params.model_dump(mode="json"), "samples": described})
    return pieces


def generate_samples(
    params: SampleParams,
    model: Path,
    prompts: Sequence[Notes | None],
    *,
    processes: int,
    desc: str,
    device: str = "cpu",
    threads: int = 1,
    controls: Controls | None = None,
) -> list[Continuation]:
    """Generates one piece for each prompt in batches, spread over processes; see `generate_batch`.

    Args:
        params: Length and sampling of the pieces.
        model: Folder of the train stage.
        prompts: N prompts; piece i is the same for any number of processes.
        processes: Number of processes.
        desc: Label of the progress bar.
        device: `runtime.device`.
        threads: `runtime.threads`, for each process.
        controls: Requested properties of the music.
    """
    numbered = list(enumerate(prompts))
    batches = [dict(numbered[first : first + BATCH_SIZE]) for first in range(0, len(numbered), BATCH_SIZE)]
    drawn = map_prepared(
        partial(_generate_batch, params, controls, desc if len(batches) == 1 else None),
        batches,
        costs=[float(len(batch)) for batch in batches],
        prepare=partial(_load_generator, model, device, threads),
        processes=processes,
        desc=desc,
        unit="piece",
    )
    return [piece for batch in drawn for piece in batch]


@contextmanager
def _load_generator(model: Path, device: str, threads: int) -> Iterator[MusicGenerator]:
    """Loads the model; torch computes deterministically inside the block."""
    with deterministic(threads, choose_device(device)):
        yield MusicGenerator.load(model, device=device)


def _generate_batch(
    params: SampleParams,
    controls: Controls | None,
    desc: str | None,
    composer: MusicGenerator,
    prompts: dict[int, Notes | None],
) -> list[Continuation]:
    """Generates the pieces of prompts by number."""
    return generate_batch(
        composer,
        list(prompts.values()),
        seconds=params.seconds,
        sampling=SamplingParams.of(params),
        seed=params.seed,
        max_tokens=params.max_tokens,
        max_empty_bars=params.max_empty_bars,
        max_rewinds=params.max_rewinds,
        desc=desc,
        numbers=list(prompts),
        controls=controls,
    )


def _describe_sample(spec: SampleSpec, piece: Continuation) -> dict[str, Any]:
    described: dict[str, Any] = {"name": spec.name, "notes": len(piece.notes), "seconds": piece.notes.end}
    described |= {
        "tokens": piece.tokens,
        "prompt_seconds": piece.prompt_end,
        "reached_its_time": piece.reached,
        "rewinds": piece.rewinds,
        "tokens_redrawn": piece.redrawn,
    }
    if spec.source is not None:
        described |= {"composer": spec.source.composer, "title": spec.source.title}
    return described
