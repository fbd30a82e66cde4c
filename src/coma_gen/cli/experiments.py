"""`coma-gen experiments`: which run is best, by how much, and what it does otherwise."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coma_gen.workspace.paths import Workspace

if TYPE_CHECKING:
    from coma_gen.experiments.overview import Overview, Row
    from coma_gen.experiments.queue import Queue

EXAMPLES = """examples:
  coma-gen experiments                       all that were scored, the best first
  coma-gen experiments --baseline slower     held against one of them
  coma-gen experiments slower shallow        these two, beside the committed results
  coma-gen experiments --compare HEAD slower a page about two: curves, figures, music with players

docs/experiments.md says what the columns are. In brackets are 95% intervals by a bootstrap over compositions;
that of a difference draws the same compositions for both runs.
"""
DIGITS = {"nats": 3, "illegal": 4, "telling": 0, "copied": 0, "tokens": 0, "parameters": 0}
"""Behind the point; 2 for all others."""
MOST_CHANGES = 4
"""Params of a row that are written out; the rest is counted, and in --json."""
MARK = "*"


def add_command(commands: argparse._SubParsersAction[Any]) -> None:
    """Adds `experiments` to the command line."""
    experiments = commands.add_parser(
        "experiments",
        help="all experiments in one table, the best first, with confidence",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    experiments.add_argument("names", nargs="*", metavar="NAME", help="only these (default: all)")
    experiments.add_argument(
        "--baseline",
        metavar="NAME",
        help="the run that the others are held against (default: the committed results, HEAD; without any, "
        "those of the workspace)",
    )
    experiments.add_argument(
        "--compare",
        nargs=2,
        metavar=("A", "B"),
        help="write one page about two runs, A being the baseline; it needs no network",
    )
    experiments.add_argument(
        "--output", type=Path, metavar="FILE", help="of --compare (default: A-B.html in this folder)"
    )
    experiments.add_argument("--json", action="store_true", help="the table for programs")
    experiments.set_defaults(run=_experiments)


def _experiments(workspace: Workspace, options: argparse.Namespace, _rest: list[str]) -> int:
    if options.compare:
        first, second = options.compare
        return _compare(workspace, first, second, options.output)
    from coma_gen.experiments.overview import overview

    found = overview(workspace.root, options.names, baseline=options.baseline)
    print(json.dumps(asdict(found), indent=2) if options.json else "\n".join(_lines(found)))
    return 0


def _compare(workspace: Workspace, first: str, second: str, output: Path | None) -> int:
    from coma_gen.experiments.comparison import write_comparison

    destination = output or Path(f"{first}-{second}.html".replace("/", "-"))
    write_comparison(workspace.root, first, second, destination)
    print(destination)
    return 0


def _lines(found: Overview) -> Iterator[str]:
    """The table, and below it what all rows share, what the signs mean, and what has no row."""
    rows = found.rows
    shared = _shared(rows)
    names = [name for name in _names(rows) if name not in shared and name not in ("low", "high")]
    head = ["experiment", *names, f"against {found.baseline}", "what differs"]
    cells = [
        [
            row.name + MARK * row.is_here,
            *(_figure(row.figures, name) for name in names),
            _against(row, found.baseline),
            _changes(row.changes),
        ]
        for row in rows
    ]
    yield ""
    yield from _aligned([head, *cells])
    yield ""
    if shared:
        yield "  The same in all: " + ", ".join(f"{name} {_number(name, shared[name])}" for name in shared)
    yield "  bits: of the test split, per note at 10 ms; less is better. Columns: docs/experiments.md"
    if any(row.is_here for row in rows):
        yield f"  {MARK} lies in this checkout"
    yield from _left_out(found)
    yield from _queue(found.queue)


def _names(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row.figures))


def _shared(rows: Sequence[Row]) -> dict[str, float]:
    """Figures that are the same in all of several rows; never the one that runs are ranked by."""
    if len(rows) < 2:
        return {}
    first, *others = (row.figures for row in rows)
    same = [name for name in first if all(each.get(name) == first[name] for each in others)]
    return {name: first[name] for name in same if name not in ("bits", "low", "high")}


def _figure(figures: Mapping[str, float], name: str) -> str:
    if name not in figures:
        return "-"
    text = _number(name, figures[name])
    if name == "bits" and "low" in figures and "high" in figures:
        text += f" [{figures['low']:.2f}, {figures['high']:.2f}]"
    return text


def _number(name: str, value: float) -> str:
    return f"{value:,.{DIGITS.get(name, 2)}f}"


def _against(row: Row, baseline: str) -> str:
    from coma_gen.experiments.ablation_table import shown_difference

    return "baseline" if row.name == baseline else shown_difference(row.difference) or row.note


def _changes(changes: Mapping[str, Any]) -> str:
    written = [f"{key}={_written(value)}" for key, value in list(changes.items())[:MOST_CHANGES]]
    rest = len(changes) - len(written)
    return " ".join([*written, *([f"and {rest} more"] if rest else [])])


def _written(value: Any) -> str:
    is_plain = isinstance(value, str) and value.isprintable() and " " not in value
    return str(value) if is_plain else json.dumps(value, ensure_ascii=False)


def _aligned(lines: Sequence[Sequence[str]]) -> Iterator[str]:
    """Columns below each other: text to the left, figures to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    last = len(widths) - 1
    for line in lines:
        cells = [
            cell.ljust(width) if column in (0, last) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        yield ("  " + "   ".join(cells)).rstrip()


def _left_out(found: Overview) -> Iterator[str]:
    if found.left_out:
        yield f"\n  Not scored, {len(found.left_out)}:"
        yield from (f"  - {why}" for why in found.left_out.values())


def _queue(queue: Queue) -> Iterator[str]:
    """A line of counts, and a line for each that failed."""
    if queue.counts:
        words = {"Queued": "queued", "Running": "running", "Success": "ended", "Failed": "failed"}
        told = [f"{queue.counts[name]} {word}" for name, word in words.items() if queue.counts.get(name)]
        yield f"\n  DVC's queue: {', '.join(told)}"
        yield from (f"  - {name}: {why}" for name, why in queue.failed.items())
