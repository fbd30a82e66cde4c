"""Whether the model is right on average, and what truncation makes of it: by type of token, on test music.

At each token of real music the model has a distribution over what comes next. Where a duration comes next,
its mean over the durations is what the model expects, and over many tokens these should agree with the
durations that came. What is drawn follows the distribution after temperature and truncation, whose mean may
be another: then the music drifts, as each note conditions those after it.

Shapes: T tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from coma_gen.config.schema import SampleParams
from coma_gen.evaluation.splits import original_sequences
from coma_gen.generation.sampling import SamplingParams, probabilities
from coma_gen.model.device import choose_device, deterministic
from coma_gen.model.serialization import load_model
from coma_gen.shards.read import ShardedSplit
from coma_gen.tokenizer.grammar import Grammar
from coma_gen.tokenizer.vocabulary import Vocabulary

WINDOW = 512
"""Tokens that are read from nothing; the second half of them count."""
Floats = npt.NDArray[np.float64]
Figures = dict[str, dict[str, float]]


def calibrate_sampler(
    params: SampleParams, model: Path, shards: Path, *, device: str, threads: int
) -> Figures:
    """Reads at most `params.excerpts` windows of test performances, evenly over them.

    Args:
        params: the sample section: how tokens are chosen.
        model: what the train stage wrote.
        shards: tokens of the same tokenizer.
        device: as `runtime.device`.
        threads: as `runtime.threads`.

    Returns:
        See `means_by_type`. Nothing under byte-pair encoding, where an id has several values.
    """
    vocabulary = Vocabulary.load(model / "tokenizer")
    if vocabulary.learned:
        return {}
    torch_device, grammar, choice = choose_device(device), Grammar.of(vocabulary), SamplingParams.of(params)
    special = [vocabulary.pad_id, vocabulary.bos_id, vocabulary.eos_id]
    came, expected, drawn = [], [], []
    with deterministic(threads, torch_device), torch.inference_mode():
        conformer = load_model(model, device=torch_device).model.eval()
        for piece, start, end in _windows(ShardedSplit.open(shards, "test"), params.excerpts):
            middle = (start + end) // 2
            inputs = torch.from_numpy(piece[None, start : end - 1].astype(np.int64)).to(torch_device)
            logits = conformer(inputs)[0, middle - start - 1 :].float().cpu().numpy()
            targets = piece[middle:end].astype(np.int64)
            legal = grammar.allowed(grammar.states(piece[1:])[middle - 1 : end - 1])
            legal[:, special] = False
            music = ~np.isin(targets, special)
            came.append(targets[music])
            expected.append(probabilities(logits[music], legal[music], SamplingParams()))
            drawn.append(probabilities(logits[music], legal[music], choice, choice.parts(vocabulary)))
    return means_by_type(vocabulary, np.concatenate(came), np.concatenate(expected), np.concatenate(drawn))


def means_by_type(
    vocabulary: Vocabulary, came: npt.NDArray[np.int64], expected: Floats, drawn: Floats
) -> Figures:
    """Means of values, and shares of types.

    Args:
        vocabulary: of base tokens.
        came: (T,) the tokens of the music.
        expected: (T, V) the model's distributions.
        drawn: (T, V) those that are drawn from.

    Returns:
        "pitch", "velocity" (MIDI), "duration" and "position" (seconds; a position is one in its bar), at
        positions where such a token came; "share_of_<type>", at all. Each with the number of `places`,
        the means of the `music`, the `model` and what is `sampled`, and the `standard_error` of music less
        model, about twice which chance alone explains.
    """
    types = np.array(vocabulary.base_types)
    figures = {}
    for name, values in _values(vocabulary).items():
        ids, rows = np.flatnonzero(types == name), np.flatnonzero(types[came] == name)
        if len(rows):
            columns = values[ids]
            means = [
                part[np.ix_(rows, ids)] @ columns / part[np.ix_(rows, ids)].sum(1)
                for part in (expected, drawn)
            ]
            figures[name.lower()] = _figures(values[came[rows]], *means)
    for name in dict.fromkeys(types[came].tolist()):
        of_type = types == name
        shares = [part[:, of_type].sum(1) for part in (expected, drawn)]
        figures[f"share_of_{name.lower()}"] = _figures((types[came] == name).astype(np.float64), *shares)
    return figures


def _figures(music: Floats, model: Floats, sampled: Floats) -> dict[str, float]:
    error = float((music - model).std()) / len(music) ** 0.5
    means = {"music": music.mean(), "model": model.mean(), "sampled": sampled.mean()}
    return (
        {"places": len(music)}
        | {name: float(mean) for name, mean in means.items()}
        | {"standard_error": error}
    )


def _values(vocabulary: Vocabulary) -> Mapping[str, Floats]:
    """Type -> (V,) the value of each id of it."""
    found = {name: np.zeros(len(vocabulary)) for name in ("Pitch", "Velocity", "Duration", "Position")}
    for name, values in found.items():
        ids = vocabulary.span(name)
        if name == "Duration":
            values[ids.start : ids.stop] = vocabulary.duration_seconds
        else:
            unit = 1 / vocabulary.positions_per_second if name == "Position" else 1.0
            values[ids.start : ids.stop] = [unit * int(vocabulary.base_values[index]) for index in ids]
    return found


def _windows(split: ShardedSplit, count: int) -> list[tuple[npt.NDArray[np.uint16], int, int]]:
    """(piece, start, end) of at most `count` windows of tokens, evenly over the row of all of them."""
    spans = [
        (piece, start, min(start + WINDOW, len(piece)))
        for piece in original_sequences(split)
        for start in range(0, max(1, len(piece) - WINDOW // 2), WINDOW)
        if len(piece) - start > 2
    ]
    number = min(count, len(spans))
    return [spans[(2 * index + 1) * len(spans) // (2 * number)] for index in range(number)]
