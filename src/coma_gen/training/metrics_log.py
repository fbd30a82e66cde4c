"""Training curve: one CSV row per logged step, written during training and free of timings.

A checkpoint contains the rows up to its step. A resumed run starts its file from them, so rows written
between the checkpoint and the interruption are not duplicated and the final file equals that of an
uninterrupted run. Readers that follow the file must reopen it by name and expect it to shrink.
"""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from types import TracebackType

from coma_gen.core.io import write_atomic
from coma_gen.training.events import EventFiles


@dataclass(frozen=True)
class MetricsRow:
    """One logged step.

    Attributes:
        step: Number of optimizer steps done.
        tokens: Number of targets since the start.
        train_loss: Nats per token over the steps since the previous row, with dropout.
        learning_rate: Learning rate of this step.
        grad_norm: Gradient norm of this step, before clipping.
        validation_nll: Nats per token over the whole validation split; None if this step was not validated.
    """

    step: int
    tokens: int
    train_loss: float
    learning_rate: float
    grad_norm: float
    validation_nll: float | None

    def to_csv(self) -> str:
        """Formats the row as a CSV line, with six significant digits."""
        cells = (
            "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
            for value in astuple(self)
        )
        return ",".join(cells) + "\n"


HEADER = ",".join(field.name for field in fields(MetricsRow)) + "\n"
SPEED_HEADER = "step,tokens_per_second,tokens_per_cpu_second\n"
"""Throughput in wall-clock time and in CPU time of this process, which other programs do not slow down."""


class MetricsLog:
    """Appends rows to curve.csv and speed.csv, each flushed at once.

    Attributes:
        path: Path of curve.csv.
        text: Complete content of curve.csv.
    """

    def __init__(self, folder: Path | None, text: str = HEADER, *, events: Path | None = None) -> None:
        """Opens the files.

        Args:
            folder: Folder of the files; None to write none.
            text: Content of curve.csv up to the checkpoint, header included; it replaces the file.
            events: Folder of TensorBoard event files; None to write none.
        """
        self.path = Path(os.devnull) if folder is None else folder / "curve.csv"
        speed = Path(os.devnull) if folder is None else folder / "speed.csv"
        self.text = text
        if folder is not None:
            write_atomic(self.path, text)
            write_atomic(speed, _read_complete_lines(speed) or SPEED_HEADER)
        with ExitStack() as opened:
            self._file = opened.enter_context(self.path.open("a", encoding="utf-8", newline=""))
            self._speed = opened.enter_context(speed.open("a", encoding="utf-8", newline=""))
            self._events = None if events is None else EventFiles(events)
            if self._events is not None:
                opened.callback(self._events.close)
                self._events.write(HEADER, text.removeprefix(HEADER))
            self._opened = opened.pop_all()
        self._seconds, self._cpu_seconds, self._tokens = 0.0, 0.0, 0
        self._started = self._cpu_started = 0.0
        self.tokens_per_second = 0.0

    def start(self) -> None:
        """Starts the timer of a step."""
        self._started, self._cpu_started = time.perf_counter(), time.process_time()

    def count(self, tokens: int) -> None:
        """Stops the timer of a step with `tokens` targets."""
        self._seconds += time.perf_counter() - self._started
        self._cpu_seconds += time.process_time() - self._cpu_started
        self._tokens += tokens
        self.tokens_per_second = self._tokens / max(self._seconds, 1e-9)

    def append(self, row: MetricsRow) -> None:
        """Writes a row to curve.csv, and the throughput since the previous row to speed.csv."""
        line = row.to_csv()
        self._file.write(line)
        self._file.flush()
        self.text += line
        if self._events is not None:
            self._events.write(HEADER, line)
        per_cpu_second = self._tokens / max(self._cpu_seconds, 1e-9)
        self._speed.write(f"{row.step},{self.tokens_per_second:.6g},{per_cpu_second:.6g}\n")
        self._speed.flush()
        self._seconds, self._cpu_seconds, self._tokens = 0.0, 0.0, 0

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.close()


def _read_complete_lines(path: Path) -> str:
    """Reads a file without a last line that a killed process left incomplete."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return text[: text.rfind("\n") + 1]
