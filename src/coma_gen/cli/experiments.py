"""`coma-gen experiments`: rank all runs, with confidence intervals and the settings that differ."""

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
  coma-gen experiments                       all scored runs, best first
  coma-gen experiments --baseline slower     compared with the run 'slower'
  coma-gen experiments slower shallow        these two, and the committed results
  coma-gen experiments --compare HEAD slower a page on two runs: curves, figures, samples with players

docs/experiments.md explains the columns. Brackets are 95% confidence intervals from a bootstrap over
compositions; for differences it is paired: both runs use the same resampled compositions.
"""
DIGITS = {"nats": 3, "illegal": 4, "telling": 0, "copied": 0, "tokens": 0, "parameters": 0}
"""Decimals by column; 2 for all others."""
MAX_CHANGES = 4
"""Maximum number of changed params shown per row; further ones are counted (--json lists all)."""
MARK = "*"


def add_command(commands: argparse._SubParsersAction[Any]) -> None:
    """Adds `experiments` to the command line."""
    experiments = commands.add_parser(
        "experiments",
        help="compare all runs in one table, best first",
        description="Compare all runs in one table, best first.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    experiments.add_argument("names", nargs="*", metavar="NAME", help="runs to show (default: all)")
    experiments.add_argument(
        "--baseline",
        metavar="NAME",
        help="run that the others are compared with (default: the committed results, HEAD, or else the "
        "workspace)",
    )
    experiments.add_argument(
        "--compare",
        nargs=2,
        metavar=("A", "B"),
        help="write an offline page that compares two runs, with A as the baseline",
    )
    experiments.add_argument(
        "--output", type=Path, metavar="FILE", help="page to write with --compare (default: A-B.html)"
    )
    experiments.add_argument("--json", action="store_true", help="print JSON")
    experiments.set_defaults(run=_print_experiments)


def _print_experiments(workspace: Workspace, options: argparse.Namespace, _rest: list[str]) -> int:
    if options.compare:
        first, second = options.compare
        return _compare(workspace, first, second, options.output)
    from coma_gen.experiments.overview import overview

    found = overview(workspace.root, options.names, baseline=options.baseline)
    print(json.dumps(asdict(found), indent=2) if options.json else "\n".join(_format_lines(found)))
    return 0


def _compare(workspace: Workspace, first: str, second: str, output: Path | None) -> int:
    from coma_gen.experiments.comparison import write_comparison

    destination = output or Path(f"{first}-{second}.html".replace("/", "-"))
    write_comparison(workspace.root, first, second, destination)
    print(destination)
    return 0


def _format_lines(found: Overview) -> Iterator[str]:
    """Formats the table, followed by figures common to all rows, a legend, and runs without a score."""
    rows = found.rows
    shared = _find_shared(rows)
    names = [name for name in _collect_names(rows) if name not in shared and name not in ("low", "high")]
    head = ["experiment", *names, f"against {found.baseline}", "what differs"]
    cells = [
        [
            row.name + MARK * row.is_here,
            *(_format_figure(row.figures, name) for name in names),
            _format_difference(row, found.baseline),
            _format_changes(row.changes),
        ]
        for row in rows
    ]
    yield ""
    yield from _align([head, *cells])
    yield ""
    if shared:
        yield "  The same in all: " + ", ".join(
            f"{name} {_format_number(name, shared[name])}" for name in shared
        )
    yield "  bits: bits per note at 10 ms on the test split; lower is better. Columns: docs/experiments.md"
    if any(row.is_here for row in rows):
        yield f"  {MARK} in this checkout"
    yield from _format_unscored(found)
    yield from _format_queue(found.queue)


def _collect_names(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row.figures))


def _find_shared(rows: Sequence[Row]) -> dict[str, float]:
    """Figures that are equal in all rows, except bits per note, by which runs are ranked."""
    if len(rows) < 2:
        return {}
    first, *others = (row.figures for row in rows)
    same = [name for name in first if all(each.get(name) == first[name] for each in others)]
    return {name: first[name] for name in same if name not in ("bits", "low", "high")}


def _format_figure(figures: Mapping[str, float], name: str) -> str:
    if name not in figures:
        return "-"
    text = _format_number(name, figures[name])
    if name == "bits" and "low" in figures and "high" in figures:
        text += f" [{figures['low']:.2f}, {figures['high']:.2f}]"
    return text


def _format_number(name: str, value: float) -> str:
    return f"{value:,.{DIGITS.get(name, 2)}f}"


def _format_difference(row: Row, baseline: str) -> str:
    from coma_gen.experiments.ablation_table import format_difference

    return "baseline" if row.name == baseline else format_difference(row.difference) or row.note


def _format_changes(changes: Mapping[str, Any]) -> str:
    written = [f"{key}={_format_setting(value)}" for key, value in list(changes.items())[:MAX_CHANGES]]
    rest = len(changes) - len(written)
    return " ".join([*written, *([f"and {rest} more"] if rest else [])])


def _format_setting(value: Any) -> str:
    is_plain = isinstance(value, str) and value.isprintable() and " " not in value
    return str(value) if is_plain else json.dumps(value, ensure_ascii=False)


def _align(lines: Sequence[Sequence[str]]) -> Iterator[str]:
    """Aligns the columns: text to the left, figures to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    last = len(widths) - 1
    for line in lines:
        cells = [
            cell.ljust(width) if column in (0, last) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        yield ("  " + "   ".join(cells)).rstrip()


def _format_unscored(found: Overview) -> Iterator[str]:
    if found.left_out:
        yield f"\n  Not scored, {len(found.left_out)}:"
        yield from (f"  - {why}" for why in found.left_out.values())


def _format_queue(queue: Queue) -> Iterator[str]:
    """Yields a line of counts by status, and a line for each failed experiment."""
    if queue.counts:
        words = {"Queued": "queued", "Running": "running", "Success": "ended", "Failed": "failed"}
        counts = [f"{queue.counts[name]} {word}" for name, word in words.items() if queue.counts.get(name)]
        yield f"\n  DVC's queue: {', '.join(counts)}"
        yield from (f"  - {name}: {why}" for name, why in queue.failed.items())
