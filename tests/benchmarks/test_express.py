"""The evaluation of `express`: errors, constant and bigram baselines against hand-computed values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.express import Touches, errors, fit_bigram, fit_constant
from coma_gen.config.load import load_params
from coma_gen.midi.notes import Notes
from coma_gen.tokenizer.remi import Tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    params = load_params(Path(__file__).resolve().parents[2] / "params.yaml")
    return Tokenizer.build(params.tokenizer.model_copy(update={"vocab_size": None}))


def test_errors_are_of_velocities_and_octaves() -> None:
    truth = Touches(np.array([60.0, 70.0]), np.array([0.5, 1.0]))
    predicted = Touches(np.array([70.0, 66.0]), np.array([1.0, 1.0]))
    assert errors(truth, predicted) == (7.0, 0.5)


def test_the_constant_is_the_mean_and_the_bigram_the_median(tokenizer: Tokenizer) -> None:
    vocabulary = tokenizer.vocabulary
    bins = vocabulary.velocities
    velocity = [bins[3], bins[3], bins[9], bins[20], bins[20]]
    music = Notes.of(np.arange(5) * 1.0, [0.25, 0.25, 1.0, 0.5, 0.5], [60, 60, 60, 61, 61], velocity)
    ids = tokenizer.encode(music)
    touches = Touches.of(ids, vocabulary)
    assert touches.velocity.tolist() == velocity
    same = fit_constant([ids], vocabulary)(touches)
    assert same.velocity.tolist() == pytest.approx([np.mean(velocity)] * 5)
    assert same.seconds[0] == pytest.approx(np.exp(np.log(touches.seconds).mean()))
    predicted = Touches.of(fit_bigram([ids], vocabulary)(ids), vocabulary)
    assert predicted.velocity.tolist() == [bins[3], bins[3], bins[3], bins[20], bins[20]]
    np.testing.assert_allclose(predicted.seconds, touches.seconds[[0, 0, 0, 3, 3]])
