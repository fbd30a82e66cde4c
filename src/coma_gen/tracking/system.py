"""System metrics (CPU, memory and, if present, GPU), read by MLflow's own monitors."""

from __future__ import annotations

from contextlib import suppress
from typing import Any


class SystemMonitor:
    """Reads metrics of the whole machine, not only of this process."""

    def __init__(self) -> None:
        from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
        from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor

        self._monitors: list[Any] = [CPUMonitor()]  # type: ignore[no-untyped-call]
        with suppress(ImportError, RuntimeError):  # no nvidia-ml-py, or no NVIDIA GPU
            self._monitors.append(GPUMonitor())  # type: ignore[no-untyped-call]
        self.read()

    def read(self) -> dict[str, float]:
        """Returns MLflow's metric names and values; CPU usage covers the time since the previous call."""
        found: dict[str, float] = {}
        for monitor in self._monitors:
            monitor.collect_metrics()
            found |= monitor.aggregate_metrics()
            monitor.clear_metrics()
        return found
