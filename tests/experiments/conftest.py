"""A small ablation in a folder of its own, and made-up results of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from coma_gen.experiments.ablation import Ablation, read_ablation
from coma_gen.experiments.ablation_table import RunFigures

ROOT = Path(__file__).resolve().parents[2]
SMALL = """
preset: few
base: {train: {warmup_steps: 5}}
seeds: [3, 4]
cells:
  base: {why: as it is}
  wide: {why: twice as wide, model: {dim: 256}, train: {steps: 30}}
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """params.yaml, one preset, and an ablation called small."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    (tmp_path / "presets" / "ablations").mkdir(parents=True)
    (tmp_path / "presets" / "few.yaml").write_text("train: {steps: 20, warmup_steps: 7}\n")
    (tmp_path / "presets" / "ablations" / "small.yaml").write_text(SMALL)
    return tmp_path


@pytest.fixture
def small(checkout: Path) -> Ablation:
    return read_ablation(checkout, "small")


@pytest.fixture
def result() -> Callable[..., RunFigures]:
    """A run that costs so many bits more than 10 and 30 on two compositions of 1 and 3 notes."""

    def make(
        seed: int,
        more: tuple[float, float] = (0.0, 0.0),
        *,
        speed: float | None = 1000.0,
        onset_error: float = 6.0,
    ) -> RunFigures:
        names = ["b.midi", "a.midi"]
        test = pd.DataFrame(
            {
                "split": "test",
                "midi_filename": names,
                "composer": "C",
                "title": names,
                "notes": [1, 3],
                "nats": np.log(2) * (np.array([8.0, 24.0]) + more),
                "resolution_bits": [2.0, 6.0],
            }
        )
        other = test.assign(split="validation", nats=1e9)
        bits = (40 + sum(more)) / 4
        return RunFigures(
            seed=seed,
            parameters=1_000_000,
            tokens=5_000,
            onset_error=onset_error,
            duration_error=8.0,
            tokens_per_note=3.5,
            tokens_per_cpu_second=speed,
            validation=bits + 1,
            test=bits,
            windowed=bits + 0.25,
            performances=pd.concat([other, test]),
        )

    return make
