"""Fault injection: the choice of the search budget, and the table of all faults.

A test calls `tally` with the fault, the promise and the number of tries. A run that names this folder prints
the table of all of them; with COMA_FAULTS_TABLE=docs/reliability.md it also writes it there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from faults.budgets import MINUTES

BEGIN, END = "<!-- what `make faults` printed: begin -->", "<!-- end -->"
Row = tuple[str, str, str]
"""Fault, promise, test."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves the whole forms out, unless they are asked for by `-m`."""
    if "faults" not in str(config.option.markexpr):
        items[:] = [item for item in items if item.get_closest_marker("faults") is None]


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Callable[[str, str, int], None]:
    """Notes that a promise was tried so many times under a fault, in this test."""

    def note(fault: str, promise: str, times: int) -> None:
        assert times > 0
        name = request.node.nodeid.partition("[")[0]
        request.node.user_properties.append(("fault", [fault, promise, name, times]))

    return note


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Prints the table, and writes it where it is asked for."""
    tried: dict[Row, int] = {}
    failed: set[str] = set()
    for outcome in ("passed", "failed"):
        for report in terminalreporter.stats.get(outcome, ()):
            if outcome == "failed":
                failed.add(report.nodeid.partition("[")[0])
            for kind, found in report.user_properties if report.when == "call" else ():
                if kind == "fault":
                    row = (found[0], found[1], found[2])
                    tried[row] = tried.get(row, 0) + found[3]
    lines = list(_table(tried, failed))
    if "faults" in str(config.option.markexpr):
        lines = [f"Searches went on for {MINUTES:g} minutes on each kind of input.", "", *lines]
    terminalreporter.section("faults")
    for line in lines:
        terminalreporter.write_line(line)
    page = os.environ.get("COMA_FAULTS_TABLE")
    if page and tried and not config.option.keyword:  # a part of the tests makes no table
        text = Path(page).read_text(encoding="utf-8")
        before, _, rest = text.partition(BEGIN)
        after = rest.partition(END)[2]
        Path(page).write_text("\n".join([before + BEGIN, *lines, END]) + after, encoding="utf-8")


def _table(tried: dict[Row, int], failed: set[str]) -> Iterator[str]:
    yield "| fault | promise | test | times tried | result |"
    yield "|---|---|---|---|---|"
    for (fault, promise, name), times in sorted(tried.items(), key=lambda item: (item[0][2], item[0])):
        short = name.removeprefix("tests/faults/")
        yield f"| {fault} | {promise} | `{short}` | {times:,} | {'FAILED' if name in failed else 'holds'} |"
    for name in sorted(failed - {row[2] for row in tried}):
        yield f"| | | `{name.removeprefix('tests/faults/')}` | | FAILED |"
    yield f"| all | | | {sum(tried.values()):,} | {len(failed)} failed |"
