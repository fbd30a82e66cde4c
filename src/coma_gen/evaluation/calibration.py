"""Calibration of the model by type of token on test music, before and after truncation.

At each token of real music the model predicts a distribution over the next token. Where the next token is a
duration, the mean of the distribution over durations is the duration that the model expects; averaged over
many tokens, it should equal the mean of the actual durations. Samples are drawn from the distribution after
temperature and truncation, whose mean may differ: then the music drifts, since each note conditions the next.

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
"""Tokens of a window; only its second half is counted."""
Floats = npt.NDArray[np.float64]
Figures = dict[str, dict[str, float]]


def calibrate_sampler(
    params: SampleParams, model: Path, shards: Path, *, device: str, threads: int
) -> Figures:
    """Compares real, predicted and sampled values on at most `params.excerpts` windows of the test split.

    Args:
        params: The sample section, with the sampling parameters.
        model: Folder of the train stage.
        shards: Shards of the same tokenizer.
        device: `runtime.device`.
        threads: `runtime.threads`.

    Returns:
        See `means_by_type`. Empty under byte-pair encoding, where an id has several values.
    """
    vocabulary = Vocabulary.load(model / "tokenizer")
    if vocabulary.learned:
        return {}
    torch_device, grammar, sampling = choose_device(device), Grammar.of(vocabulary), SamplingParams.of(params)
    special = [vocabulary.pad_id, vocabulary.bos_id, vocabulary.eos_id]
    observed, expected, drawn = [], [], []
    with deterministic(threads, torch_device), torch.inference_mode():
        conformer = load_model(model, device=torch_device).model.eval()
        for piece, start, end in _space_windows(ShardedSplit.open(shards, "test"), params.excerpts):
            middle = (start + end) // 2
            inputs = torch.from_numpy(piece[None, start : end - 1].astype(np.int64)).to(torch_device)
            logits = conformer(inputs)[0, middle - start - 1 :].float().cpu().numpy()
            targets = piece[middle:end].astype(np.int64)
            legal = grammar.allowed(grammar.states(piece[1:])[middle - 1 : end - 1])
            legal[:, special] = False
            music = ~np.isin(targets, special)
            observed.append(targets[music])
            expected.append(probabilities(logits[music], legal[music], SamplingParams()))
            drawn.append(probabilities(logits[music], legal[music], sampling, sampling.parts(vocabulary)))
    return means_by_type(
        vocabulary, np.concatenate(observed), np.concatenate(expected), np.concatenate(drawn)
    )


def means_by_type(
    vocabulary: Vocabulary, targets: npt.NDArray[np.int64], expected: Floats, drawn: Floats
) -> Figures:
    """Computes the mean value of each token type, and the fraction of tokens of each type.

    Args:
        vocabulary: Vocabulary without byte pairs.
        targets: (T,) tokens of the music.
        expected: (T, V) distributions of the model.
        drawn: (T, V) distributions after temperature and truncation.

    Returns:
        "pitch", "velocity" (MIDI), "duration" and "position" (seconds; a position counts from its bar), over
        the tokens of that type; and "share_of_<type>" over all tokens. Each with the number of tokens
        (`places`), the means of the `music`, the `model` and the distribution that is `sampled`, and the
        `standard_error` of the mean of music minus model: chance alone explains a difference of about twice
        that.
    """
    types = np.array(vocabulary.base_types)
    figures = {}
    for name, values in _get_token_values(vocabulary).items():
        ids, rows = np.flatnonzero(types == name), np.flatnonzero(types[targets] == name)
        if len(rows):
            columns = values[ids]
            means = [
                part[np.ix_(rows, ids)] @ columns / part[np.ix_(rows, ids)].sum(1)
                for part in (expected, drawn)
            ]
            figures[name.lower()] = _summarize(values[targets[rows]], *means)
    for name in dict.fromkeys(types[targets].tolist()):
        of_type = types == name
        shares = [part[:, of_type].sum(1) for part in (expected, drawn)]
        figures[f"share_of_{name.lower()}"] = _summarize((types[targets] == name).astype(np.float64), *shares)
    return figures


def _summarize(music: Floats, model: Floats, sampled: Floats) -> dict[str, float]:
    error = float((music - model).std()) / len(music) ** 0.5
    means = {"music": music.mean(), "model": model.mean(), "sampled": sampled.mean()}
    return (
        {"places": len(music)}
        | {name: float(mean) for name, mean in means.items()}
        | {"standard_error": error}
    )


def _get_token_values(vocabulary: Vocabulary) -> Mapping[str, Floats]:
    """Returns token type -> (V,) value of each id of that type."""
    found = {name: np.zeros(len(vocabulary)) for name in ("Pitch", "Velocity", "Duration", "Position")}
    for name, values in found.items():
        ids = vocabulary.span(name)
        if name == "Duration":
            values[ids.start : ids.stop] = vocabulary.duration_seconds
        else:
            unit = 1 / vocabulary.positions_per_second if name == "Position" else 1.0
            values[ids.start : ids.stop] = [unit * int(vocabulary.base_values[index]) for index in ids]
    return found


def _space_windows(split: ShardedSplit, count: int) -> list[tuple[npt.NDArray[np.uint16], int, int]]:
    """Returns (piece, start, end) of at most `count` windows, spaced evenly over all windows of the split."""
    spans = [
        (piece, start, min(start + WINDOW, len(piece)))
        for piece in original_sequences(split)
        for start in range(0, max(1, len(piece) - WINDOW // 2), WINDOW)
        if len(piece) - start > 2
    ]
    number = min(count, len(spans))
    return [spans[(2 * index + 1) * len(spans) // (2 * number)] for index in range(number)]
