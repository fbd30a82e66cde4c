"""Being stopped, kindly: a signal ends training after the step at hand and its checkpoint."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class TrainingInterrupted(KeyboardInterrupt):
    """Training was stopped from outside, with everything up to `step` in a checkpoint.

    Attributes:
        step: optimizer steps done.
        exit_status: what a stage should exit with: 128 + the signal's number, as shells have it.
    """

    def __init__(self, reason: str, step: int, exit_status: int) -> None:
        super().__init__(
            f"training was stopped by {reason} after step {step}; the same command goes on from there"
        )
        self.step = step
        self.exit_status = exit_status


class GracefulStop:
    """Listens for SIGINT and SIGTERM inside a `with` block; a second signal acts as it would have without us.

    Signals that are ignored stay ignored (a job in the background of a script), and outside the main
    thread, where Python allows no handlers, none is listened for.

    Args:
        patient: further signals do nothing either, nor do they once an exception leaves the block. For one
            of several ranks, which its launcher, its group and a scheduler may all tell the same.
    """

    def __init__(self, *, patient: bool = False) -> None:
        self._signal: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}
        self._is_patient = patient

    @property
    def reason(self) -> str | None:
        """Who asks training to stop; None while nobody does."""
        return None if self._signal is None else self._signal.name

    def interrupted(self, step: int) -> TrainingInterrupted:
        """The exception that says so; where nobody asked this process, another rank was asked."""
        number = self._signal if self._signal is not None else signal.SIGTERM
        return TrainingInterrupted(self.reason or "a signal to another rank", step, 128 + number)

    def _listen(self, number: int, _frame: FrameType | None) -> None:
        if self._signal is None:
            self._signal = signal.Signals(number)
        if not self._is_patient:
            self._restore()

    def _restore(self) -> None:
        while self._before:
            number, handler = self._before.popitem()
            signal.signal(number, handler)

    def __enter__(self) -> GracefulStop:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self._before[number] = signal.signal(number, self._listen)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_patient and kind is not None:
            self._before = dict.fromkeys(self._before, signal.SIG_IGN)
        self._restore()
