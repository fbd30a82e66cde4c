"""Two budgets of a search for breaking inputs: a short one for every run, a long one for `make faults`.

The short search is the same at every run. The long one continues with further examples, each batch with its
own seed, until its time is over.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import SearchStrategy

T = TypeVar("T")
MINUTES = float(os.environ.get("FAULT_MINUTES", "10"))
"""Duration of each long search: MIDI, tables, archives, params and requests."""

MAX_SECONDS = 60.0
MAX_MEMORY = 2 * 2**30
"""Time of a single input, and memory of a search beyond what is in use before it."""


@dataclass(frozen=True)
class Form:
    """How much is tried.

    Attributes:
        every: of a row of moments to be killed at, each so many are taken, the first one always.
        seconds: how long a search goes on beyond its first batch.
    """

    every: int
    seconds: float


SHORT, WHOLE = Form(every=5, seconds=0.0), Form(every=1, seconds=60 * MINUTES)
BOTH_FORMS = [
    pytest.param(SHORT, id="short"),
    pytest.param(WHOLE, id="whole", marks=[pytest.mark.faults, pytest.mark.timeout(60 * MINUTES + 900)]),
]


def search(
    check: Callable[[T], None], inputs: SearchStrategy[T], form: Form, *, batch: int = 60, of: int = 1
) -> int:
    """Looks for an input that breaks `check`; returns how many were tried.

    Args:
        check: raises where an input breaks something.
        inputs: what may come.
        form: how long to look.
        batch: how many are tried in the short form.
        of: how many searches share the form's time, as they look at one kind of file.

    Raises:
        Exception: what `check` raises on the smallest input that it fails on.
        AssertionError: an input took longer than `MAX_SECONDS`, or the search more than `MAX_MEMORY`.
    """
    tried = 0

    def attempt(value: T) -> None:
        nonlocal tried
        tried += 1
        began = time.monotonic()
        check(value)
        assert time.monotonic() - began < MAX_SECONDS, "took too long"

    limits = settings(
        max_examples=batch if form.seconds == 0 else 1000,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    began, number, before = time.monotonic(), 0, _restart_peak()
    while number == 0 or time.monotonic() - began < form.seconds / of:
        limits(seed(number)(given(inputs)(attempt)))()
        number += 1
    assert _peak_bytes() <= before + MAX_MEMORY, f"took {(_peak_bytes() - before) / 2**30:.1f} GiB"
    return tried


def _restart_peak() -> int:
    """Restarts the measurement of `_peak_bytes` at the memory in use, where the system can; returns the peak.

    Without this, what earlier tests in the process took would count, or hide what a search takes.
    """
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _peak_bytes()


def _peak_bytes() -> int:
    """The largest amount of memory that this process had at once since `_restart_peak`, or ever."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
