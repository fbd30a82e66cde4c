"""Comparable timings: variants alternate in one process, and the medians of their times are compared.

On a CPU, time is CPU time of the process, which depends less on other load than wall time; on a CUDA device,
it is the time between two events. Each variant is warmed up, and every other round runs in reverse order, so
that a machine that slows down affects all variants equally.

    round 1   A B C        median of each, spread = (slowest - fastest) / median
    round 2   C B A
    round 3   A B C
"""

from __future__ import annotations

import argparse
import gc
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

RELEVANT_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16", "sve")
"""Instruction sets that determine floating-point speed, by their names in /proc/cpuinfo."""
WARM_UP_ROUNDS = {"cpu": 1, "cuda": 3}
"""Unmeasured rounds at the start."""


@dataclass(frozen=True)
class Settings:
    """Command-line settings.

    Attributes:
        device: Device of the models.
        short: Whether to run fewer rounds, and only the smaller size.
    """

    device: torch.device
    short: bool


def parse_settings(module: str, description: str, arguments: Sequence[str] | None) -> Settings:
    """Parses the command line of a script and limits numeric libraries to one thread.

    Args:
        module: Module name of the script, such as benchmarks.decode.
        description: Docstring of the script, used as help text.
        arguments: Arguments; None for those of the process.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m {module}",
        description=description,
        epilog=f"examples:\n  python -m {module} --short\n  python -m {module} --device cuda > table.md",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--short", action="store_true", help="fewer rounds, for a first look")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where the models run")
    typed = parser.parse_args(arguments)
    if typed.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: this machine has no CUDA device that torch can use")
    torch.set_num_threads(1)
    return Settings(torch.device(typed.device), typed.short)


@dataclass(frozen=True)
class Variant:
    """A function to time.

    Attributes:
        run: The timed function.
        prepare: Called before each `run`, untimed.
    """

    run: Callable[[], object]
    prepare: Callable[[], object] | None = None


@dataclass(frozen=True)
class Timing:
    """The times of one variant in seconds, one per round."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle time in seconds."""
        return statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """Relative spread: (slowest - fastest) / median."""
        return (max(self.seconds) - min(self.seconds)) / self.median if self.median else 0.0


def alternate(variants: Mapping[str, Variant], *, rounds: int, device: torch.device) -> dict[str, Timing]:
    """Times variants alternately.

    Args:
        variants: Name -> variant.
        rounds: Number of measurements of each variant.
        device: Device of the variants.

    Returns:
        Name -> timing, in the given order.
    """
    clock = _cuda_seconds if device.type == "cuda" else _cpu_seconds
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    collecting = gc.isenabled()
    gc.disable()
    gc.collect()
    gc.freeze()  # excludes existing objects, so that collecting after each run is fast
    try:
        for turn in range(-WARM_UP_ROUNDS[device.type], rounds):
            names = list(variants) if turn % 2 == 0 else list(variants)[::-1]
            for name in names:
                prepare = variants[name].prepare
                if prepare is not None:
                    prepare()
                taken = clock(variants[name].run)
                gc.collect()
                if turn >= 0:
                    seconds[name].append(taken)
    finally:
        gc.unfreeze()
        if collecting:
            gc.enable()
    return {name: Timing(tuple(values)) for name, values in seconds.items()}


def _cpu_seconds(run: Callable[[], object]) -> float:
    """Processor time of all threads of this process during `run`."""
    started = time.process_time()
    run()
    return time.process_time() - started


def _cuda_seconds(run: Callable[[], object]) -> float:
    """Time between two events on the current CUDA stream around `run`."""
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    torch.cuda.synchronize()
    first.record()
    run()
    last.record()
    torch.cuda.synchronize()
    return float(first.elapsed_time(last)) / 1000


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, words: int = 1) -> str:
    """Formats a Markdown table with padded columns.

    Args:
        head: Column names.
        rows: Cells of each row.
        words: Number of leading columns that are aligned to the left; the others are aligned to the right.

    Raises:
        ValueError: A row has more or fewer cells than the head.
    """
    lines = [list(head), *(list(row) for row in rows)]
    if any(len(line) != len(head) for line in lines):
        raise ValueError(f"every row must have {len(head)} cells")
    widths = [max(3, *(len(line[column]) for line in lines)) for column in range(len(head))]
    rule = ["-" * width if column < words else "-" * (width - 1) + ":" for column, width in enumerate(widths)]
    texts = [
        [cell.ljust(width) if column < words else cell.rjust(width) for column, (cell, width) in cells]
        for cells in (list(enumerate(zip(line, widths, strict=True))) for line in lines)
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in [texts[0], rule, *texts[1:]])


def times(ratio: float) -> str:
    """Formats a ratio, such as 1.74x."""
    return f"{ratio:.0f}x" if ratio >= 100 else f"{ratio:.3g}x" if ratio >= 10 else f"{ratio:.2f}x"


def percent(share: float) -> str:
    """Formats a share in whole percent."""
    return f"{share:.0%}"


def milliseconds(seconds: float) -> str:
    """Formats a time in milliseconds with three significant digits."""
    return f"{1000 * seconds:.3g}" if seconds < 1 else f"{1000 * seconds:,.0f}"


def heading(title: str, device: torch.device, packages: Sequence[str] = ()) -> str:
    """Formats the lines above a script's tables: title, hardware and versions."""
    names = ("torch", "numpy", *packages)
    versions = ", ".join(f"{name} {_find_version(name)}" for name in names)
    return f"### {title}\n\n{_describe_hardware(device)}.\nPython {platform.python_version()}, {versions}.\n"


def _find_version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def _describe_hardware(device: torch.device) -> str:
    """Describes the device."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}, times by CUDA events"
    model, flags = _read_processor()
    known = " ".join(flag for flag in RELEVANT_FLAGS if flag in flags) or "no flags known"
    threads = torch.get_num_threads()
    return (
        f"{model}, {os.cpu_count()} cores, {known} (torch uses {torch.backends.cpu.get_cpu_capability()}), "
        f"{threads} thread{'s' if threads > 1 else ''}, processor time"
    )


def _read_processor() -> tuple[str, set[str]]:
    """Reads the processor's name and flags, if the system reports them."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine(), set()
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    name = facts.get("model name", platform.machine())
    return name, set((facts.get("flags") or facts.get("Features") or "").split())
