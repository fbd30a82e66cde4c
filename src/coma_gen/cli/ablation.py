"""`coma-gen ablation`: queue every cell of an ablation as DVC experiments, and print the result table."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from coma_gen.core.errors import UserError
from coma_gen.workspace.paths import Workspace

FIGURES = ("fit_tokenizer", "shard", "train", "evaluate")
EXAMPLES = """examples:
  coma-gen ablation queue model     queue every cell with every seed as a DVC experiment
  dvc queue start -j 1              run them with one worker; see dvc queue status, dvc queue logs NAME
  coma-gen ablation table model     results so far, and what is missing

The ablations are in presets/ablations/; docs/ablations.md explains the table.
"""


def add_command(commands: argparse._SubParsersAction[Any]) -> None:
    """Adds `ablation` to the command line."""
    ablation = commands.add_parser(
        "ablation",
        help="queue an ablation as DVC experiments, or print its table",
        description="Queue an ablation as DVC experiments, or print its table.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = ablation.add_subparsers(dest="action", required=True, metavar="ACTION")
    queue, table = (
        actions.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        for name, text in (
            ("queue", "queue every cell with every seed as a DVC experiment"),
            ("table", "print the results so far, and what is missing, as Markdown"),
        )
    )
    for action, run in ((queue, _queue_runs), (table, _print_table)):
        action.add_argument("name", help="name of a file in presets/ablations/, such as model")
        action.set_defaults(run=run)
    table.add_argument("--json", action="store_true", help="print JSON")


def _queue_runs(workspace: Workspace, options: argparse.Namespace, _rest: list[str]) -> int:
    """Queues the experiments that neither exist nor wait; validates the params of all cells first."""
    from coma_gen.config.load import check_params
    from coma_gen.core.cores import available_cores
    from coma_gen.experiments.ablation import FOLDER, read_ablation
    from coma_gen.experiments.dvc_experiments import enqueue, find_experiments, queue_statuses
    from coma_gen.model.processes import choose_processes, max_concurrent_experiments
    from coma_gen.workspace.presets import require_committed_params

    root = workspace.root
    ablation = read_ablation(root, options.name)
    require_committed_params(root, f"{FOLDER}/{options.name}.yaml", {})
    done = find_experiments(root, ablation)
    waiting = {run for run, status in queue_statuses(root).items() if status in ("Queued", "Running")}
    queued = 0
    for run in ablation.runs:
        if run.name in done or run.name in waiting:
            print(f"{run.name}: {'already done' if run.name in done else 'already queued'}")
            continue
        enqueue(root, run)
        queued += 1
        print(f"{run.name}: queued", flush=True)
    runtime = check_params(ablation.runs[0].params).runtime
    workers, cores = max_concurrent_experiments(runtime), available_cores()
    print(f"\n{queued} queued, {len(ablation.runs) - queued} skipped.")
    print(f"Start them: dvc queue start -j {workers}")
    each = f"{choose_processes(runtime)} processes of {runtime.threads} threads"
    print(
        f"({cores} cores run {workers} at a time at full speed, with {each} each; more would share the cores)"
    )
    return 0


def _print_table(workspace: Workspace, options: argparse.Namespace, _rest: list[str]) -> int:
    """Prints the table of the finished experiments."""
    from coma_gen.experiments import ablation_table
    from coma_gen.experiments.ablation import read_ablation
    from coma_gen.experiments.dvc_experiments import find_experiments, queue_statuses
    from coma_gen.tracking.throughput import best_speeds

    ablation = read_ablation(workspace.root, options.name)
    done = find_experiments(workspace.root, ablation)
    try:
        speeds = best_speeds(workspace.home, done)
    except UserError as error:
        print(f"no speeds: {error}", file=sys.stderr)
        speeds = {}
    results = {
        run.name: ablation_table.collect_run_figures(
            run.seed,
            {stage: done[run.name].metrics(stage) for stage in FIGURES},
            done[run.name].performances(),
            speeds.get(run.name),
        )
        for run in ablation.runs
        if run.name in done
    }
    statuses = {
        run: "ran with other settings, or was removed" if status == "Success" else status.lower()
        for run, status in queue_statuses(workspace.root).items()
    }
    rows = ablation_table.rows(ablation, results, statuses)
    print(
        json.dumps(ablation_table.as_json(rows), indent=2)
        if options.json
        else ablation_table.markdown(ablation, rows)
    )
    return 0
