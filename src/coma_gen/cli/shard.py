"""`coma-gen shard`: the shard stage in parts, for large corpora and for several machines.

It writes the same data/shards and metrics/shard.json as `dvc repro shard`, to the byte; `dvc commit` then
records them in DVC.
"""

from __future__ import annotations

import argparse
import re
import shutil
import signal
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from coma_gen.core.errors import Fault, UserError
from coma_gen.workspace.paths import Workspace

if TYPE_CHECKING:
    from coma_gen.shards.tasks import Parts

EXAMPLES = """examples:
  coma-gen shard --workers 8                  on this machine; an interrupted run can be resumed
  coma-gen shard --machine 2/4                the second quarter, on the second of four machines that share
                                              this folder; when all four are done, on one of them:
  coma-gen shard --join
  coma-gen shard --slurm cpu --time 2:00:00 --workers 200 --sbatch account=music
                                              as SLURM jobs in the partition "cpu"; then --join
then, in each case: dvc commit -f shard
"""
NEXT = "to record them in DVC and run the next stages:  dvc commit -f shard && dvc repro"


def add_command(commands: Any) -> None:
    """Adds `shard` to the sub-commands of an argparse parser."""
    parser = commands.add_parser(
        "shard",
        help="write the shards in parts: with many workers or machines, resumable",
        description="Run the stage 'shard' in parts; see docs/scaling.md.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--workers",
        type=_parse_count,
        metavar="N",
        help="concurrent processes or jobs (default: one per CPU)",
    )
    parser.add_argument(
        "--files-per-task", type=_parse_count, metavar="N", help="performances per task (default: 256)"
    )
    parser.add_argument(
        "--machine",
        type=_parse_share,
        metavar="K/N",
        help="write only the K-th of N equal parts, without joining",
    )
    parser.add_argument("--join", action="store_true", help="only join the parts, once all are written")
    parser.add_argument("--slurm", metavar="PARTITION", help="submit the tasks to a SLURM cluster and return")
    parser.add_argument("--time", metavar="H:MM:SS", help="with --slurm: time limit per task")
    parser.add_argument(
        "--sbatch",
        action="append",
        default=[],
        type=_parse_option,
        metavar="KEY=VALUE",
        help="with --slurm: an option of sbatch, such as account=music; may be repeated",
    )
    parser.set_defaults(run=run)


def run(workspace: Workspace, options: argparse.Namespace, _rest: list[str]) -> int:
    """Writes the parts, submits them to a cluster, or joins them."""
    from filelock import FileLock, Timeout

    from coma_gen.config.load import load_params
    from coma_gen.core.seeding import pin_cpu
    from coma_gen.workspace.fingerprint import sharding_digest

    _check(options)
    params = load_params(workspace.params)
    pin_cpu(pin=params.runtime.pin_cpu, threads=1)
    signal.signal(signal.SIGTERM, signal.default_int_handler)

    from coma_gen.shards.encode import ShardInputs
    from coma_gen.shards.tasks import Parts

    source = ShardInputs.of(
        params.shard, *(workspace.data(name) for name in ("split", "corpus", "tokenizer"))
    )
    folder = workspace.resume / f"shard-{sharding_digest(workspace.root)[:16]}"
    folder.mkdir(parents=True, exist_ok=True)
    share = "-{}-of-{}".format(*options.machine) if options.machine else ""
    try:
        with FileLock(folder / f"shard{share}.lock", timeout=0):
            parts = Parts.divide(source, folder, files_per_task=options.files_per_task)
            return _work(workspace, options, parts)
    except Timeout:
        raise UserError(
            Fault(str(folder), "is being written to by another coma-gen shard", "", "wait for it")
        ) from None


def _check(options: argparse.Namespace) -> None:
    ways = [name for name in ("slurm", "machine", "join") if getattr(options, name)]
    faults = []
    if len(ways) > 1:
        faults.append(Fault(" and ".join(f"--{name}" for name in ways), "must not be combined"))
    if bool(options.slurm) != bool(options.time):
        faults.append(Fault("--slurm and --time", "must be given together"))
    if options.sbatch and not options.slurm:
        faults.append(Fault("--sbatch", "needs --slurm"))
    if not options.join and find_spec("datatrove") is None:
        faults.append(
            Fault("coma-gen shard", "needs datatrove", "", "install it: pip install 'coma-gen[scale]'")
        )
    if faults:
        raise UserError(*faults)


def _work(workspace: Workspace, options: argparse.Namespace, parts: Parts) -> int:
    if options.slurm:
        return _submit(options, parts)
    if options.machine:
        number, machines = options.machine
        _write(options, parts, range(len(parts) * (number - 1) // machines, len(parts) * number // machines))
        print("The parts of this machine are done. When all machines are done: coma-gen shard --join")
        return 0
    if not options.join:
        _write(options, parts, range(len(parts)))
    metrics = parts.join(workspace.data("shards"))
    workspace.write_metrics("shard", metrics)
    shutil.rmtree(parts.folder)
    pieces, tokens = (sum(metrics[split][key] for split in parts.tasks) for key in ("pieces", "tokens"))
    print(f"data/shards: {pieces:,} performances, {tokens:,} tokens as played\n{NEXT}")
    return 0


def _write(options: argparse.Namespace, parts: Parts, tasks: range) -> None:
    from coma_gen.core.cores import available_cores
    from coma_gen.shards.executors import run_local

    if tasks:
        run_local(parts, workers=options.workers or available_cores(), tasks=tasks)


def _submit(options: argparse.Namespace, parts: Parts) -> int:
    from coma_gen.shards.executors import submit

    settings = {"partition": options.slurm, "time": options.time, "workers": options.workers}
    job = submit(parts, **settings, sbatch=dict(options.sbatch))
    print(f"{len(parts)} tasks, the last job is {job}" if job else f"all {len(parts)} tasks are done")
    print(f"logs: {parts.log}\nwhen all jobs have ended: coma-gen shard --join")
    return 0


def _parse_count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of 1 or more, got {text!r}")
    return int(text)


def _parse_share(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,5})/(\d{1,5})", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise argparse.ArgumentTypeError(f"must be K/N with K from 1 to N, such as 2/4, got {text!r}")
    return int(match[1]), int(match[2])


def _parse_option(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not re.fullmatch(r"[a-z][a-z-]*", name) or not equals or "\n" in value:
        raise argparse.ArgumentTypeError(f"must be KEY=VALUE, such as account=music, got {text!r}")
    return name, value
