"""Several ranks train as one process does, also when resumed with another number of ranks."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from coma_gen.training.launch import LOST

PROGRAM = Path(__file__).with_name("forked_ranks.py")
KILLED, STOPPED = -9, 143


@dataclass
class Runs:
    """What forked_ranks.py did.

    Attributes:
        folder: of the resume folders.
        notes: name of a resume folder -> what came of each run in it.
    """

    folder: Path
    notes: dict[str, list[dict[str, Any]]]

    def rows(self, name: str) -> list[dict[str, float]]:
        """The curve, as numbers."""
        with (self.folder / name / "curve.csv").open(newline="") as file:
            return [{key: float(text or "nan") for key, text in row.items()} for row in csv.DictReader(file)]

    def weights(self, name: str) -> dict[str, torch.Tensor]:
        """The last weights."""
        return load_file(self.folder / name / "last.safetensors")

    def metrics(self, name: str) -> dict[str, Any]:
        """What the run handed back."""
        content: dict[str, Any] = json.loads((self.folder / name / "metrics.json").read_text())
        return content

    def assert_equal(self, name: str, expected: str) -> None:
        """Holds one run's curve and last weights against another's, to the last bit."""
        ours, theirs = (self.folder / each / "curve.csv" for each in (name, expected))
        assert ours.read_text() == theirs.read_text()
        last = self.weights(expected)
        assert all(torch.equal(value, last[key]) for key, value in self.weights(name).items())

    def assert_close(self, name: str, expected: str) -> None:
        """Holds one run's curve and last weights against another's, within what float sums may differ by."""
        ours, theirs = self.rows(name), self.rows(expected)
        assert len(ours) == len(theirs)
        for got, wanted in zip(ours, theirs, strict=True):
            assert got == pytest.approx(wanted, rel=1e-4, nan_ok=True)
        last = self.weights(expected)
        for key, value in self.weights(name).items():
            torch.testing.assert_close(value, last[key], rtol=0, atol=1e-3)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    folder = tmp_path_factory.mktemp("ranks")
    subprocess.run([sys.executable, str(PROGRAM), str(folder)], check=True, timeout=300)
    return Runs(folder, json.loads((folder / "runs.json").read_text()))


pytestmark = pytest.mark.slow


def test_two_ranks_take_the_steps_of_one_process(runs: Runs) -> None:
    tokens = [row["tokens"] for row in runs.rows("one")]
    of_a_step = np.diff(np.array(tokens))
    assert len(tokens) == 30 and len(set(of_a_step)) > 1, "windows must differ in their targets"
    runs.assert_equal("two", "one")
    assert runs.metrics("two")["best"]["step"] == runs.metrics("one")["best"]["step"]


def test_two_ranks_learn_from_a_teacher_as_one_does(runs: Runs) -> None:
    runs.assert_equal("taught in two", "taught")
    assert runs.rows("taught") != runs.rows("one")[: len(runs.rows("taught"))]


def test_ranks_may_share_a_micro_batch_where_there_is_no_dropout(runs: Runs) -> None:
    runs.assert_close("four dry", "one dry")
    assert runs.rows("one dry") != runs.rows("one")[: len(runs.rows("one dry"))]


def test_a_run_moves_from_one_process_to_two_and_back(runs: Runs) -> None:
    alone, killed, stopped, ended = runs.notes["moved"]
    assert alone["statuses"] == [STOPPED] and ended["statuses"] == [0]
    assert killed["checkpoints"][-1] > alone["checkpoints"][-1]
    assert stopped["checkpoints"][-1] > killed["checkpoints"][-1]
    runs.assert_equal("moved", "one")


def test_a_killed_rank_ends_the_others_with_a_checkpoint(runs: Runs) -> None:
    killed = runs.notes["moved"][1]
    assert killed["statuses"] == [LOST, KILLED] and killed["outputs"] == ["", ""]
    assert killed["checkpoints"][-1] >= 11, "of the last whole step, where none was due"


def test_a_signal_to_one_rank_stops_all_at_one_step(runs: Runs) -> None:
    stopped = runs.notes["moved"][2]
    assert stopped["statuses"] == [STOPPED, STOPPED]
    step = stopped["checkpoints"][-1]
    assert f"stopped by a signal to another rank after step {step};" in stopped["outputs"][0]
    assert stopped["outputs"][1] == ""


def test_three_ranks_that_were_stopped_end_with_the_same_bits(runs: Runs) -> None:
    """Sums of three depend on their order, which torch changes after a first backward pass."""
    assert 0 < runs.notes["again"][0]["checkpoints"][-1] < 6
    assert (runs.folder / "again" / "curve.csv").read_text() == (
        runs.folder / "three" / "curve.csv"
    ).read_text()
    last = runs.weights("three")
    assert all(torch.equal(value, last[name]) for name, value in runs.weights("again").items())


def test_all_ranks_stop_early_alike(runs: Runs) -> None:
    assert runs.metrics("worse")["stopped_early"] is True
    assert runs.notes["worse in two"][0]["statuses"] == [0, 0]
    for name in ("steps", "stopped_early"):
        assert runs.metrics("worse in two")[name] == runs.metrics("worse")[name]


def test_a_loss_that_is_no_number_on_one_rank_ends_all_with_one_line(runs: Runs) -> None:
    (poisoned,) = runs.notes["poisoned"]
    assert poisoned["statuses"] == [1, 1] and poisoned["checkpoints"] == [3]
    assert re.fullmatch(r"train step 5: .*finite.*checkpoint of step 3 is kept\n", poisoned["outputs"][0])
    assert poisoned["outputs"][1] == ""


def test_a_rank_of_another_run_is_refused(runs: Runs) -> None:
    (other,) = runs.notes["other key"]
    assert other["statuses"] == [LOST, 1] and other["checkpoints"] == []
    assert other["outputs"][1].startswith("rank 1 of 2: must have the code, params, data and libraries of")


def test_no_rank_says_more_than_it_must(runs: Runs) -> None:
    said = [text for notes in runs.notes.values() for note in notes for text in note["outputs"] if text]
    assert len(said) == 5 and all(text.count("\n") == 1 for text in said)
