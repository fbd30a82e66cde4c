"""Do the data stages scale linearly with the number of files, in constant memory?

Short synthetic performances, imported as a folder, pass through download, split, fit_tokenizer and shard,
sharding in parts with datatrove, opening the shards for training, and `dvc add`: for several numbers of
files, each stage in a fresh process. At the largest number, sharding in parts is killed half-way, resumed,
and its result compared with that of the stage. Figures for 1M files are linear extrapolations. Linux only:
memory is read from /proc.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coma_gen.config.schema import Params

ROOT = Path(__file__).resolve().parents[1]
COUNTS = (500, 1000, 2500, 5000)
FEWEST = 100
"""With fewer files, the start of the workers dominates."""
MILLION = 1_000_000
FILES_PER_TASK = 128
POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Cost:
    """Cost of a stage in a separate process.

    Attributes:
        seconds: Processor time of the process and its workers, including imports.
        peak: Peak resident memory of the process in bytes.
        worker_peak: Peak resident memory of its largest worker; 0 without workers.
    """

    seconds: float
    peak: float
    worker_peak: float


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the benchmark and prints the tables."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.measure:
        stage, folder = options.measure
        print(json.dumps(asdict(measure_stage(STAGES[stage], Path(folder), options.workers))))
        return
    counts = sorted(set(options.counts))
    if len(counts) < 2 or counts[0] < FEWEST:
        parser.error(f"--counts: two or more are needed, each {FEWEST} or more")
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="many-files-") as folder:
        report(Path(folder), counts, seconds=options.seconds, workers=options.workers)
    print(f"Total time: {time.monotonic() - began:.0f} s.")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.many_files",
        description=__doc__,
        epilog="example:\n  python -m benchmarks.many_files --counts 200 400 --workers 1",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS, help="numbers of files")
    parser.add_argument("--seconds", type=float, default=10.0, help="seconds of music per file (default: 10)")
    parser.add_argument("--workers", type=int, default=2, help="processes of each stage (default: 2)")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    return parser


def report(folder: Path, counts: Sequence[int], *, seconds: float, workers: int) -> None:
    """Measures each stage at each count in `folder`, and prints the tables."""
    import torch

    from benchmarks.timing import heading, table
    from coma_gen.corpus.synthetic import write_synthetic

    torch.set_num_threads(1)
    print(heading("Many files", torch.device("cpu"), ("pyarrow", "datatrove", "dvc")))
    print(f"Files of {seconds:g} s of synthetic music, {workers} workers, {FILES_PER_TASK} files a part.\n")
    write_synthetic(folder / "music", performances=counts[-1], seconds=seconds, seed=0)
    stages = [stage for stage in STAGES if stage != "shard, in parts" or find_spec("datatrove")]
    costs = {count: _measure_costs(folder, count, stages, workers) for count in counts}

    head = ["", *(f"{count:,} files" for count in counts), "per additional file", "1M files, extrapolated"]
    print("Processor time in ms per file, including the start of each process.\n")
    print(table(head, _time_rows(costs)) + "\n")
    print("Peak memory of the stage's process, and of its largest worker.\n")
    print(table(head, _memory_rows(costs)) + "\n")
    print("Size of the result files other than music and tokens.\n")
    print(table(head, _size_rows(folder, counts)) + "\n")
    if "shard, in parts" in stages:
        print(kill_and_resume(folder / str(counts[-1]), workers))


def _measure_costs(folder: Path, count: int, stages: Sequence[str], workers: int) -> dict[str, Cost]:
    work_dir = folder / str(count)
    (work_dir / "music").mkdir(parents=True)
    for name in sorted((folder / "music").rglob("*.midi"))[:count]:
        os.link(name, work_dir / "music" / name.name)
    return {
        stage: Cost(**json.loads(_start_stage(stage, work_dir, workers).communicate()[0])) for stage in stages
    }


def _start_stage(stage: str, work_dir: Path, workers: int) -> subprocess.Popen[str]:
    """Starts a stage in a new process and process group."""
    command = [sys.executable, "-m", "benchmarks.many_files"]
    command += ["--measure", stage, str(work_dir), "--workers", str(workers)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment, start_new_session=True
    )


def measure_stage(stage: Callable[[Path, int], object], work_dir: Path, workers: int) -> Cost:
    """Runs a stage in this process, which should be a new one, and measures its cost."""
    largest, over = [0.0], threading.Event()

    def watch() -> None:
        while not over.wait(POLL_SECONDS):
            largest.extend(_read_peak(child) for child in _children())
            largest[:] = [max(largest)]

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    before = _processor_seconds()
    stage(work_dir, workers)
    seconds = _processor_seconds() - before
    over.set()
    watcher.join()
    return Cost(seconds, _read_peak(os.getpid()), largest[0])


def _processor_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(of.ru_utime + of.ru_stime for of in used)


def _children() -> list[int]:
    tasks = Path("/proc/self/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def _read_peak(process: int) -> float:
    """Reads the peak resident memory of a process in bytes; 0 if it has ended."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0.0
    return next((1024.0 * int(line.split()[1]) for line in status.splitlines() if line[:5] == "VmHWM"), 0.0)


def _extrapolate(values: dict[int, float]) -> tuple[float, float]:
    """Fits a line; returns its slope (the cost per additional file) and its value at 1M files."""
    import numpy as np

    slope, begin = np.polyfit(list(values), list(values.values()), 1)
    return max(0.0, float(slope)), float(begin) + max(0.0, float(slope)) * MILLION


def _time_rows(costs: dict[int, dict[str, Cost]]) -> Iterator[list[str]]:
    for stage in next(iter(costs.values())):
        values = {count: of[stage].seconds for count, of in costs.items()}
        slope, whole = _extrapolate(values)
        cells = [f"{1000 * value / count:.2f}" for count, value in values.items()]
        yield [stage, *cells, f"{1000 * slope:.2f}", f"{whole / 60:.0f} min"]


def _memory_rows(costs: dict[int, dict[str, Cost]]) -> Iterator[list[str]]:
    for stage in next(iter(costs.values())):
        for name, key in ((stage, "peak"), (f"{stage}: a worker", "worker_peak")):
            values = {count: getattr(of[stage], key) for count, of in costs.items()}
            slope, whole = _extrapolate(values)
            if all(values.values()):
                cells = [f"{value / 2**20:.0f} MiB" for value in values.values()]
                yield [name, *cells, f"{slope / 1024:.1f} KiB", f"{whole / 2**30:.2f} GiB"]


def _size_rows(folder: Path, counts: Sequence[int]) -> Iterator[list[str]]:
    for name, pattern in (
        ("corpus.csv", "corpus/corpus.csv"),
        ("corpus/manifest.json", "corpus/manifest.json"),
        ("split/*.csv", "split/*.csv"),
        ("shards/*/index.parquet", "shards/*/index.parquet"),
        ("DVC's list of data/corpus", ".dvc/cache/**/*.dir"),
    ):
        sizes = [sum(path.stat().st_size for path in (folder / str(count)).glob(pattern)) for count in counts]
        slope, whole = _extrapolate(dict(zip(counts, map(float, sizes), strict=True)))
        cells = [f"{size / 1024:.0f} KiB" for size in sizes]
        yield [name, *cells, f"{slope:.0f} B", f"{whole / 2**20:.0f} MiB"]


def kill_and_resume(work_dir: Path, workers: int) -> str:
    """Kills sharding in parts half-way, resumes it, and compares the result with that of the stage."""
    from coma_gen.core.artifact import verify_artifact

    for left in ("parts", "in-parts"):
        shutil.rmtree(work_dir / left)
    completions = work_dir / "parts" / "log" / "completions"
    job = _start_stage("shard, in parts", work_dir, workers)
    plan = work_dir / "parts" / "plan.json"
    while job.poll() is None and not (
        plan.exists() and _count(completions) * 2 >= _count(plan.parent / "tables")
    ):
        time.sleep(POLL_SECONDS)
    os.killpg(job.pid, signal.SIGKILL)
    job.wait()
    done, tasks = _count(completions), _count(plan.parent / "tables")
    finished = {part.name: part.stat().st_ino for part in (work_dir / "parts" / "parts").glob("[0-9]*")}
    assert _start_stage("shard, in parts", work_dir, workers).wait() == 0
    after = {part.name: part.stat().st_ino for part in (work_dir / "parts" / "parts").glob("[0-9]*")}
    one, other = (verify_artifact(work_dir / name, kind="shards").digest for name in ("shards", "in-parts"))
    same = "identical to" if one == other else "DIFFERENT FROM"
    again = sum(after[name] != number for name, number in finished.items())
    return (
        f"Killed (kill -9 of all processes) after {done} of {tasks} parts. The resumed run wrote "
        f"{tasks - len(finished)} missing parts and rewrote {again}. Its result is {same} the stage's.\n"
    )


def _count(folder: Path) -> int:
    return len(list(folder.iterdir())) if folder.exists() else 0


def _params() -> Params:
    from coma_gen.config.load import load_params

    return load_params(ROOT / "params.yaml")


def _download(work_dir: Path, _workers: int) -> None:
    from coma_gen.corpus.build import build_corpus

    download = _params().download.model_copy(update={"corpus": "folder"})
    build_corpus(download, work_dir / "corpus", cache=work_dir, own_folder=work_dir / "music")


def _split(work_dir: Path, _workers: int) -> None:
    from coma_gen.corpus.split import split_corpus

    split_corpus(_params().split, work_dir / "corpus", work_dir / "split")


def _fit_tokenizer(work_dir: Path, _workers: int) -> None:
    from coma_gen.tokenizer.stage import fit_tokenizer

    fit_tokenizer(_params().tokenizer, work_dir / "split", work_dir / "corpus", work_dir / "tokenizer")


def _fit_byte_pairs(work_dir: Path, _workers: int) -> None:
    from coma_gen.tokenizer.stage import fit_tokenizer

    params = _params().tokenizer.model_copy(update={"vocab_size": 1000})
    fit_tokenizer(params, work_dir / "split", work_dir / "corpus", work_dir / "byte-pairs")


def _shard(work_dir: Path, workers: int) -> None:
    from coma_gen.shards.stage import write_shards

    folders = [work_dir / name for name in ("split", "corpus", "tokenizer", "shards")]
    write_shards(_params().shard, *folders, workers=workers)


def _shard_in_parts(work_dir: Path, workers: int) -> None:
    from coma_gen.shards.encode import ShardInputs
    from coma_gen.shards.executors import run_local
    from coma_gen.shards.tasks import Parts

    source = ShardInputs.of(_params().shard, *(work_dir / name for name in ("split", "corpus", "tokenizer")))
    parts = Parts.divide(source, work_dir / "parts", files_per_task=FILES_PER_TASK)
    run_local(parts, workers=workers)
    parts.join(work_dir / "in-parts")


def _open_for_training(work_dir: Path, _workers: int) -> None:
    from coma_gen.shards.read import ShardedSplit
    from coma_gen.shards.windows import draw_windows

    train = ShardedSplit.open(work_dir / "shards", "train")
    draw_windows(train, seed=0, step=0, batch=1, seq_len=256, shifts=None, pad_id=0)


def _dvc_add(work_dir: Path, _workers: int) -> None:
    command = [sys.executable, "-m", "dvc"]
    subprocess.run([*command, "init", "--no-scm", "--quiet"], cwd=work_dir, check=True)
    subprocess.run([*command, "add", "--quiet", "corpus"], cwd=work_dir, check=True)


STAGES: dict[str, Callable[[Path, int], object]] = {
    "download": _download,
    "split": _split,
    "fit_tokenizer": _fit_tokenizer,
    "fit_tokenizer, byte pairs": _fit_byte_pairs,
    "shard": _shard,
    "shard, in parts": _shard_in_parts,
    "open for training": _open_for_training,
    "dvc add": _dvc_add,
}


if __name__ == "__main__":
    main()
