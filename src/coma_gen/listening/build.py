"""Builds the page of a listening test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from coma_gen.core.artifact import read_manifest
from coma_gen.core.io import sha256_bytes
from coma_gen.listening.answer_key import ANSWERS, AnswerKey
from coma_gen.listening.trials import make_trials
from coma_gen.report.listening_page import listening_page, render_trial


def build_page(
    models: Mapping[str, Path],
    sources: Sequence[str],
    data: Path,
    *,
    count: int,
    prompt_seconds: float,
    seconds: float,
    seed: int,
) -> tuple[str, AnswerKey]:
    """Builds the page as HTML, and its answer key; for arguments and errors see `make_trials`."""
    trials = make_trials(
        models, sources, data, count=count, prompt_seconds=prompt_seconds, seconds=seconds, seed=seed
    )
    played = [
        render_trial(trial.passage.prompt, trial.new, seconds=seconds)
        for trial in tqdm(trials, desc="sound", unit="trial", disable=None)
    ]
    key = AnswerKey(
        sources=tuple(sources),
        trials=tuple(trial.sides for trial in trials),
        about={
            "seed": seed,
            "models": {name: read_manifest(folder, kind="model").digest for name, folder in models.items()},
            "prompts": [[trial.passage.midi_filename, trial.passage.start] for trial in trials],
            "sounds": [[sha256_bytes(content) for content in trial.sounds] for trial in played],
        },
    )
    return listening_page(played, sealed=key.text, digest=key.digest, kind=ANSWERS), key
