"""`coma-gen result`: tables of finished runs in Markdown."""

from __future__ import annotations

import argparse
from typing import Any

from coma_gen.workspace.paths import Workspace

EXAMPLES = """examples:
  coma-gen result                                  the results in this checkout
  coma-gen result maestro-cpu maestro-cpu-plain    two experiments, named as in `dvc exp show`

The runs must be scored on the same test performances. If several experiments have the same name, the one
based on the commit of this checkout is used, else the newest.
"""


def add_command(commands: argparse._SubParsersAction[Any]) -> None:
    """Adds `result` to the command line."""
    result = commands.add_parser(
        "result",
        help="print likelihood, music measures and memorization of finished runs as Markdown tables",
        description="Print likelihood, music measures and memorization of finished runs as Markdown tables.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument("names", nargs="*", metavar="NAME", help="experiment (default: this checkout)")
    result.set_defaults(run=_print_result)


def _print_result(workspace: Workspace, options: argparse.Namespace, _rest: list[str]) -> int:
    from coma_gen.experiments.dvc_experiments import find_experiment, head
    from coma_gen.experiments.result_tables import markdown, read_run
    from coma_gen.experiments.run_files import Checkout, RunFiles

    runs: dict[str, RunFiles] = {name: find_experiment(workspace.root, name) for name in options.names}
    runs = runs or {"this model": Checkout(workspace.root, head(workspace.root))}
    print(markdown([read_run(name, where) for name, where in runs.items()]))
    return 0
