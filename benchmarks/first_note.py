"""How long does generation take from the shell and from the page, and what do four variants in a batch cost?

    git worktree add ../before d1d9a7c
    python -m benchmarks.first_note --before ../before

The commands of two builds alternate, each in a single-threaded process, with the pretrained model and the
waltz of `coma-gen play` as the prompt. The main figure is CPU time of the whole process (user and system),
which depends less on other load than wall time, which is also given. Each figure is the median over rounds
with different seeds. "Sampling alone" is the difference between 30 s and 1 s of music, without audio.

From the page: four variants of 30 s are requested over HTTP, as the page does, and the time to the first
event with new notes is measured.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from coma_gen.midi.io import midi_bytes
from coma_gen.play.prompts import PROMPTS

ROOT = Path(__file__).resolve().parents[1]
MODEL = ROOT / "pretrained" / "model"
SECONDS = 30
TASKS = {
    "one piece of 30 s, with picture and sound": (SECONDS, 1, "flac"),
    "one piece of 1 s, with picture, without sound": (1, 1, "none"),
    "one piece of 30 s, without sound": (SECONDS, 1, "none"),
    "four variants of 30 s, without sound": (SECONDS, 4, "none"),
}
WITH_SOUND, START, ONE, FOUR = TASKS


@dataclass(frozen=True)
class Cost:
    """Processor seconds, wall-clock seconds and sampled tokens of one command."""

    processor: float
    wall: float
    tokens: float

    @classmethod
    def median(cls, costs: Sequence[Cost]) -> Cost:
        """Takes the median of each field."""
        return cls(
            *(statistics.median(getattr(cost, name) for cost in costs) for name in cls.__annotations__)
        )


def measure(source: Path, folder: Path, task: str, seed: int) -> Cost:
    """Runs one task with one build.

    Args:
        source: The src folder of the build.
        folder: Folder that contains the prompt; the pieces are written there.
        task: Key of TASKS.
        seed: Seed of the pieces.
    """
    seconds, num, audio = TASKS[task]
    words = [sys.executable, "-P", "-m", "coma_gen.cli", "generate", "--prompt", "waltz.mid"]
    words += ["--model", str(MODEL), "--seed", str(seed), "--seconds", str(seconds), "--num", str(num)]
    words += ["--top-p", "0.8", "--audio", audio, "--out", source.parent.name, "--force"]
    environment = os.environ | {"PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    started = time.perf_counter()
    process = subprocess.Popen(
        words, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, used = os.wait4(process.pid, 0)
    wall = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(words)} ended with {process.returncode}")
    pieces = json.loads((folder / source.parent.name / "settings.json").read_text(encoding="utf-8"))["pieces"]
    return Cost(used.ru_utime + used.ru_stime, wall, sum(piece["tokens"] for piece in pieces))


def measure_shell(builds: dict[str, Path], rounds: int) -> str:
    """Measures the commands of all builds and formats the table."""
    costs: dict[tuple[str, str], list[Cost]] = {}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "waltz.mid").write_bytes(midi_bytes(PROMPTS["waltz"]()))
        for source in builds.values():
            measure(source, Path(folder), START, 0)
        for seed in range(rounds):
            for name in list(builds)[:: 1 if seed % 2 else -1]:
                for task in TASKS:
                    cost = measure(builds[name], Path(folder), task, seed)
                    costs.setdefault((name, task), []).append(cost)
    medians = {key: Cost.median(each) for key, each in costs.items()}
    lines = [f"| processor seconds (wall clock) | {' | '.join(builds)} |", "|---|" + "---:|" * len(builds)]
    for task in TASKS:
        cells = [
            f"{cost.processor:.2f} ({cost.wall:.1f})" for cost in (medians[name, task] for name in builds)
        ]
        lines.append(f"| {task} | {' | '.join(cells)} |")
    rows: dict[str, list[str]] = {
        "sampling alone, seconds of music per processor second": [],
        "the same, tokens per processor second": [],
        "the same in a batch of four, tokens": [],
        "four runs / one batch of four": [],
        "the same by sampling alone, for each token": [],
    }
    for name in builds:
        start, one, four = (medians[name, task] for task in (START, ONE, FOUR))
        alone, together = one.processor - start.processor, four.processor - start.processor
        rate, batched = (one.tokens - start.tokens) / alone, (four.tokens - 4 * start.tokens) / together
        figures = [(SECONDS - 1) / alone, rate, batched, 4 * one.processor / four.processor, batched / rate]
        for row, value in zip(rows.values(), figures, strict=True):
            row.append(f"{value:.0f}" if value > 50 else f"{value:.1f}")
    lines += [f"| {what} | {' | '.join(cells)} |" for what, cells in rows.items()]
    return "\n".join(lines)


@contextmanager
def _serve_page() -> Iterator[tuple[str, psutil.Process]]:
    words = [sys.executable, "-m", "coma_gen.cli", "play", "--no-browser", "--model", str(MODEL)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        address = next(found[1] for line in lines if (found := re.search(r"http://([\d.:]+)", line)))
        next(line for line in lines if "Ctrl-C" in line)
        try:
            yield address, psutil.Process(process.pid)
        finally:
            process.terminate()


def measure_page(rounds: int) -> str:
    """Measures the time from a request to the first new notes, and to the end."""
    midi = base64.b64encode(midi_bytes(PROMPTS["waltz"]())).decode()
    started = time.perf_counter()
    first, last = [], []
    with _serve_page() as (address, server):
        ready = Cost(_processor_seconds(server), time.perf_counter() - started, 0)
        for seed in range(rounds):
            request = {"midi": midi, "seconds": SECONDS, "num": 4, "seed": seed}
            since, used, has_begun = time.perf_counter(), _processor_seconds(server), False
            line = http.client.HTTPConnection(address, timeout=600)
            line.request("POST", "/continue", json.dumps(request), {"content-type": "application/json"})
            for event in map(json.loads, line.getresponse()):
                if not has_begun and any(part["notes"] for part in event.get("progress", [])):
                    first.append(Cost(_processor_seconds(server) - used, time.perf_counter() - since, 0))
                    has_begun = True
            line.close()
            last.append(Cost(_processor_seconds(server) - used, time.perf_counter() - since, 0))
    rows = {
        "from the command to the page": ready,
        "from pressing Continue to the first new notes of four variants": Cost.median(first),
        "to the end of four variants of 30 s": Cost.median(last),
    }
    lines = ["| the browser page | processor seconds | wall clock |", "|---|---:|---:|"]
    return "\n".join(
        [*lines, *(f"| {what} | {cost.processor:.2f} | {cost.wall:.2f} |" for what, cost in rows.items())]
    )


def _processor_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the benchmark and prints the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--before", type=Path, help="a checkout of an earlier build")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each task (default: 5)")
    options = parser.parse_args(arguments)
    builds = {} if options.before is None else {"before": options.before.resolve() / "src"}
    print(measure_shell(builds | {"now": ROOT / "src"}, options.rounds))
    print()
    print(measure_page(options.rounds))


if __name__ == "__main__":
    main()
