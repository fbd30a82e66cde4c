"""The curve: one CSV row for each logged step, written while training runs and free of times.

A checkpoint holds the rows up to its step. A resumed run starts its file from them, so that rows written
between the checkpoint and the interruption are not there twice, and the finished file is the one of an
uninterrupted run. Whoever follows the file opens it by name and reckons with it becoming shorter.
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
        step: optimizer steps done.
        tokens: targets seen since the start.
        train_loss: nats per token over the steps since the row before, dropout on.
        learning_rate: of this step.
        grad_norm: of this step, before clipping.
        validation_nll: nats per token over the whole validation split, where this step was validated.
    """

    step: int
    tokens: int
    train_loss: float
    learning_rate: float
    grad_norm: float
    validation_nll: float | None

    def to_csv(self) -> str:
        """The row as a line of text, floats at six significant digits."""
        cells = (
            "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
            for value in astuple(self)
        )
        return ",".join(cells) + "\n"


HEADER = ",".join(field.name for field in fields(MetricsRow)) + "\n"
SPEED_HEADER = "step,tokens_per_second,tokens_per_cpu_second\n"
"""Against the clock, and against the CPU time of this process, which other programs do not slow down."""


class MetricsLog:
    """Appends to curve.csv, and to speed.csv beside it, each row readable at once.

    Attributes:
        path: the curve's file.
        text: all of its content.
    """

    def __init__(self, folder: Path | None, text: str = HEADER, *, events: Path | None = None) -> None:
        """Opens the files.

        Args:
            folder: where they are; None writes nowhere.
            text: the curve so far, header included, as the checkpoint has it; what else the file holds is
                dropped.
            events: folder of TensorBoard's event files; None writes none.
        """
        self.path = Path(os.devnull) if folder is None else folder / "curve.csv"
        speed = Path(os.devnull) if folder is None else folder / "speed.csv"
        self.text = text
        if folder is not None:
            write_atomic(self.path, text)
            write_atomic(speed, _whole_lines(speed) or SPEED_HEADER)
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
        """Notes that a step begins."""
        self._started, self._cpu_started = time.perf_counter(), time.process_time()

    def count(self, tokens: int) -> None:
        """Notes that the step is done, and had `tokens` targets."""
        self._seconds += time.perf_counter() - self._started
        self._cpu_seconds += time.process_time() - self._cpu_started
        self._tokens += tokens
        self.tokens_per_second = self._tokens / max(self._seconds, 1e-9)

    def append(self, row: MetricsRow) -> None:
        """Writes a row to the curve, and the speed since the row before to speed.csv."""
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


def _whole_lines(path: Path) -> str:
    """What a file holds but for a last line that a killed process left without its end."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return text[: text.rfind("\n") + 1]
