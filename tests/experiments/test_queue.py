"""The status of DVC's queue: counts, and one line per failure."""

from __future__ import annotations

from pathlib import Path

import pytest

from coma_gen.experiments.queue import MAX_REASON, UNKNOWN, Queue, read_queue, reason

BEGIN = """Running stage 'check':
> exec python3 stages/check.py
Running stage 'train':
> exec python3 stages/train.py
"""
END = "ERROR: failed to reproduce 'train': failed to run: exec python3 stages/train.py, exited with 1\n"


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (
            "\ntrain step 12: loss must be finite, got nan: lower it\nBefore it runs a stage, DVC removes\n",
            "train: train step 12: loss must be finite, got nan: lower it",
        ),
        (
            ' 50%|##   | 6/12\r100%|####| 12/12\n\nTraceback (most recent call last):\n  File "a.py"\n'
            "ValueError: no\n",
            "train: ValueError: no",
        ),
        ("", "train: > exec python3 stages/train.py"),
    ],
)
def test_the_reason_is_what_the_last_stage_said_last(said: str, why: str) -> None:
    assert reason(BEGIN + said + END) == why


def test_where_nothing_was_written_it_says_so() -> None:
    assert reason("") == UNKNOWN


def test_a_long_reason_is_cut() -> None:
    assert len(reason("x" * 1000)) == MAX_REASON


def test_without_a_queue_there_is_none(tmp_path: Path) -> None:
    assert read_queue(tmp_path) == Queue()
