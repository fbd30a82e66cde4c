"""How accurately does the model reconstruct the velocities and note lengths of test pieces?

    python -m benchmarks.express

Onsets and pitches of each test piece are given. The model samples velocities and lengths autoregressively, as
in `coma-gen express`, several times; the mean of the samples is compared with the truth. A second run also
gives the true lengths, as with `--keep-lengths`. With teacher forcing, the median of each distribution is
used. Baselines are the best constant (means over the train split of velocities and of log lengths) and a
bigram model of the train split (median velocity given the pitch, and median length given that velocity).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from coma_gen.generation.music_generator import MusicGenerator
from coma_gen.generation.sampling import SamplingParams, probabilities, sample_from
from coma_gen.generation.touch import TouchRequest, draw_touches
from coma_gen.model.device import deterministic
from coma_gen.shards.read import ShardedSplit
from coma_gen.tokenizer.vocabulary import Ids, Vocabulary

Predict = Callable[[Ids], Ids]
MEDIAN = 0.5
"""Uniform number with which inverse-CDF sampling returns the median of an ordered distribution."""
CHUNK = 2048
"""Tokens per forward pass."""
DATA = Path(__file__).resolve().parents[1] / "data"


@dataclass(frozen=True)
class Touches:
    """Velocities and lengths of notes, (N,) each: MIDI numbers, and seconds."""

    velocity: npt.NDArray[np.float64]
    seconds: npt.NDArray[np.float64]

    @classmethod
    def of(cls, ids: Ids, vocabulary: Vocabulary) -> Touches:
        """Reads velocities and lengths from base ids."""
        values = []
        for kind, bins in (("Velocity", vocabulary.velocities), ("Duration", vocabulary.duration_seconds)):
            span = vocabulary.span(kind)
            chosen = ids[(ids >= span.start) & (ids < span.stop)].astype(np.int64) - span.start
            values.append(np.asarray(bins, np.float64)[chosen])
        return cls(*values)


def errors(truth: Touches, predicted: Touches) -> tuple[float, float]:
    """Computes mean absolute errors of velocities, and of log2 lengths (octaves)."""
    velocity = np.abs(truth.velocity - predicted.velocity).mean()
    octaves = np.abs(np.log2(truth.seconds) - np.log2(predicted.seconds)).mean()
    return float(velocity), float(octaves)


def fit_constant(train: Sequence[Ids], vocabulary: Vocabulary) -> Callable[[Touches], Touches]:
    """Fits the best constant prediction, the same touch for every note."""
    touches = Touches.of(np.concatenate(list(train)), vocabulary)
    velocity, seconds = touches.velocity.mean(), float(np.exp(np.log(touches.seconds).mean()))
    return lambda truth: Touches(np.full_like(truth.velocity, velocity), np.full_like(truth.seconds, seconds))


def fit_bigram(train: Sequence[Ids], vocabulary: Vocabulary, *, add: float = 0.01) -> Predict:
    """Fits medians to the train split: of velocity given the pitch, and of length given the velocity."""
    size = len(vocabulary.base)
    counts = np.full((size, size), add)
    for piece in train:
        np.add.at(counts, (piece[:-1].astype(np.int64), piece[1:].astype(np.int64)), 1)
    medians = {}
    for kind in ("Velocity", "Duration"):
        span = vocabulary.span(kind)
        shares = np.cumsum(counts[:, span.start : span.stop], axis=1)
        medians[kind] = span.start + (shares < MEDIAN * shares[:, -1:]).sum(axis=1)

    def predict(ids: Ids) -> Ids:
        predicted = ids.astype(np.int64)
        for index, kind in enumerate(np.array(vocabulary.base_types)[predicted]):
            if kind in medians:
                predicted[index] = medians[kind][predicted[index - 1]]
        return predicted.astype(np.uint16)

    return predict


def measure(data: Path, *, notes: int, draws: int) -> str:
    """Computes a table of errors over the first notes of each test piece.

    Args:
        data: Folder that contains model/ and shards/.
        notes: Maximum number of notes per piece.
        draws: Number of sampled performances that are averaged per piece.
    """
    generator = MusicGenerator.load(data / "model")
    vocabulary = generator.tokenizer.vocabulary
    train, test = (_read_pieces(data, split, vocabulary) for split in ("train", "test"))
    test = [_truncate(piece, notes, vocabulary) for piece in test]
    truth = [Touches.of(piece, vocabulary) for piece in test]
    with deterministic(1):
        drawn, velocities_only = (
            [_mean_of_draws(generator, piece, draws, keep_lengths=keep) for piece in test]
            for keep in (False, True)
        )
        forced = [Touches.of(_predict_teacher_forced(generator, piece), vocabulary) for piece in test]
    constant, bigram = fit_constant(train, vocabulary), fit_bigram(train, vocabulary)
    rows = {
        "mean of the train split": [constant(each) for each in truth],
        "bigram": [Touches.of(bigram(piece), vocabulary) for piece in test],
        f"this model, mean of {draws} draws": drawn,
        "the same, true lengths given": velocities_only,
        "this model, teacher forcing": forced,
    }
    total = _concatenate(truth)
    lines = ["| mean absolute error | velocity | length, octaves |", "|---|---|---|"]
    for name, touches in rows.items():
        velocity, octaves = errors(total, _concatenate(touches))
        lines.append(f"| {name} | {velocity:.2f} | {octaves:.3f} |")
    return "\n".join([*lines, "", f"{len(total.velocity):,} notes of {len(test)} test pieces"])


def _mean_of_draws(generator: MusicGenerator, piece: Ids, draws: int, *, keep_lengths: bool) -> Touches:
    """Averages several sampled performances; lengths by their geometric mean."""
    vocabulary = generator.tokenizer.vocabulary
    drawn = draw_touches(generator, piece, TouchRequest(num=draws, keep_lengths=keep_lengths))
    played = [Touches.of(each, vocabulary) for each in drawn]
    return Touches(
        np.mean([each.velocity for each in played], axis=0),
        np.exp(np.mean([np.log(each.seconds) for each in played], axis=0)),
    )


@torch.inference_mode()
def _predict_teacher_forced(generator: MusicGenerator, piece: Ids) -> Ids:
    """Predicts the median of each velocity and duration, with all true preceding tokens as context."""
    vocabulary, model = generator.tokenizer.vocabulary, generator.loaded.model
    state, predicted = model.init_cache(1), piece.astype(np.int64)
    read = np.concatenate([[generator.tokenizer.bos_id], predicted[:-1]])
    for start in range(0, len(read), CHUNK):
        logits = model(torch.from_numpy(read[None, start : start + CHUNK]), state)[0].double().numpy()
        for kind in ("Velocity", "Duration"):
            span = vocabulary.span(kind)
            part = piece[start : start + CHUNK]
            where = np.flatnonzero((part >= span.start) & (part < span.stop))
            among = probabilities(logits[where, span.start : span.stop], None, SamplingParams())
            predicted[start + where] = span.start + sample_from(among, np.full(len(where), MEDIAN))
    return predicted.astype(np.uint16)


def _concatenate(touches: Sequence[Touches]) -> Touches:
    return Touches(
        np.concatenate([each.velocity for each in touches]),
        np.concatenate([each.seconds for each in touches]),
    )


def _read_pieces(data: Path, split: str, vocabulary: Vocabulary) -> list[Ids]:
    """Reads the performances of a split as base ids, without augmented copies."""
    shards = ShardedSplit.open(data / "shards", split, copies=False)
    special = [vocabulary.pad_id, vocabulary.bos_id, vocabulary.eos_id]
    pieces = (vocabulary.expanded(shards.piece(int(row))) for row in shards.originals)
    return [piece[~np.isin(piece, special)] for piece in pieces]


def _truncate(piece: Ids, notes: int, vocabulary: Vocabulary) -> Ids:
    span = vocabulary.span("Duration")
    ends = np.flatnonzero((piece >= span.start) & (piece < span.stop))
    return piece[: ends[min(notes, len(ends)) - 1] + 1]


def main() -> None:
    """Reads the command line and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, default=DATA, help="folder that contains model/ and shards/ (default: data)"
    )
    parser.add_argument(
        "--notes", type=int, default=2000, help="maximum number of notes per piece (default: 2000)"
    )
    parser.add_argument("--draws", type=int, default=4, help="sampled performances per piece (default: 4)")
    options = parser.parse_args()
    print(measure(options.data, notes=options.notes, draws=options.draws))


if __name__ == "__main__":
    main()
