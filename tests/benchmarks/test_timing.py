"""Variants alternate, only the timed function is timed, and table columns are aligned."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import timing

CPU = torch.device("cpu")


def test_variants_take_turns_after_a_warm_up_and_every_other_round_runs_backwards() -> None:
    done: list[str] = []
    variants = {
        "a": timing.Variant(lambda: done.append("a"), lambda: done.append("before a")),
        "b": timing.Variant(lambda: done.append("b")),
    }
    timings = timing.alternate(variants, rounds=2, device=CPU)
    assert done == ["b", "before a", "a", "before a", "a", "b", "b", "before a", "a"]
    assert list(timings) == ["a", "b"]
    assert all(len(timings[name].seconds) == 2 for name in variants)


def test_preparation_is_not_timed_and_what_runs_is(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(timing.time, "process_time", lambda: clock[0])

    def passing(seconds: float) -> None:
        clock[0] += seconds

    variant = timing.Variant(lambda: passing(2.0), lambda: passing(50.0))
    (found,) = timing.alternate({"it": variant}, rounds=3, device=CPU).values()
    assert found.seconds == (2.0, 2.0, 2.0)


def test_median_and_spread() -> None:
    found = timing.Timing((4.0, 1.0, 2.0))
    assert found.median == 2.0
    assert found.spread == 1.5


@given(st.lists(st.lists(st.text("ab 1", max_size=9), min_size=3, max_size=3), min_size=1, max_size=4))
def test_columns_line_up_and_hold_their_cells(lines: list[list[str]]) -> None:
    drawn = timing.table(lines[0], lines[1:], words=2).splitlines()
    assert len({len(line) for line in drawn}) == 1
    assert set(drawn[1]) <= set("|-: ") and drawn[1].count(":") == 1
    cells = [[cell.strip() for cell in line[1:-1].split("|")] for line in drawn]
    assert [cells[0], *cells[2:]] == [[cell.strip() for cell in line] for line in lines]


def test_a_row_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="2 cells"):
        timing.table(["a", "b"], [["1", "2", "3"]])


@pytest.mark.parametrize(
    ("ratio", "text"), [(1.236, "1.24x"), (12.36, "12.4x"), (99.99, "100x"), (123.6, "124x")]
)
def test_ratios(ratio: float, text: str) -> None:
    assert timing.times(ratio) == text


@pytest.mark.parametrize(("seconds", "text"), [(2.8174, "2,817"), (0.10249, "102"), (0.0019, "1.9")])
def test_milliseconds(seconds: float, text: str) -> None:
    assert timing.milliseconds(seconds) == text


def test_the_heading_names_what_was_measured_on() -> None:
    text = timing.heading("Title", CPU, ("no-such-package",))
    assert "### Title" in text and "1 thread," in text
    assert f"torch {torch.__version__}" in text and "no-such-package absent" in text


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        timing.parse_settings("benchmarks.it", "What is measured.", ["--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert "What is measured." in shown and "python -m benchmarks.it --short" in shown


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_an_absent_device_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        timing.parse_settings("benchmarks.it", "", ["--device", "cuda"])
    assert ended.value.code == 2
    assert "no CUDA device" in capsys.readouterr().err
