"""Graceful stop: a signal ends training after the current step and a checkpoint."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class TrainingInterrupted(KeyboardInterrupt):
    """Training was stopped by a signal and saved a checkpoint of `step`.

    Attributes:
        step: Number of optimizer steps done.
        exit_status: Exit status of the stage, 128 + signal number, the convention of shells.
    """

    def __init__(self, reason: str, step: int, exit_status: int) -> None:
        super().__init__(f"training was stopped by {reason} after step {step}; the same command resumes it")
        self.step = step
        self.exit_status = exit_status


class GracefulStop:
    """Records the first SIGINT or SIGTERM inside a `with` block; a second one has its original effect.

    Ignored signals stay ignored (as in a background job of a script). Outside the main thread, where Python
    allows no handlers, no signals are handled.

    Args:
        patient: Whether to ignore further signals, also after an exception leaves the block. Set it for
            ranks, which may get the same signal from their launcher, process group and scheduler.
    """

    def __init__(self, *, patient: bool = False) -> None:
        self._signal: signal.Signals | None = None
        self._handlers: dict[signal.Signals, Any] = {}
        self._is_patient = patient

    @property
    def reason(self) -> str | None:
        """Name of the received signal; None if there was none."""
        return None if self._signal is None else self._signal.name

    def build_exception(self, step: int) -> TrainingInterrupted:
        """Returns the exception to raise; without a signal to this process, another rank received one."""
        number = self._signal if self._signal is not None else signal.SIGTERM
        return TrainingInterrupted(self.reason or "a signal to another rank", step, 128 + number)

    def _record(self, number: int, _frame: FrameType | None) -> None:
        if self._signal is None:
            self._signal = signal.Signals(number)
        if not self._is_patient:
            self._restore()

    def _restore(self) -> None:
        while self._handlers:
            number, handler = self._handlers.popitem()
            signal.signal(number, handler)

    def __enter__(self) -> GracefulStop:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self._handlers[number] = signal.signal(number, self._record)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_patient and kind is not None:
            self._handlers = dict.fromkeys(self._handlers, signal.SIG_IGN)
        self._restore()
