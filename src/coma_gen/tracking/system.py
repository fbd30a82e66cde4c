"""How busy the machine is: CPU, memory and, where there is one, GPU, by MLflow's own monitors."""

from __future__ import annotations

from contextlib import suppress
from typing import Any


class SystemMonitor:
    """Looks at the whole machine, whoever uses it."""

    def __init__(self) -> None:
        from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
        from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor

        self._monitors: list[Any] = [CPUMonitor()]  # type: ignore[no-untyped-call]
        with suppress(ImportError, RuntimeError):  # no nvidia-ml-py, or no GPU of NVIDIA's
            self._monitors.append(GPUMonitor())  # type: ignore[no-untyped-call]
        self.read()

    def read(self) -> dict[str, float]:
        """MLflow's name of each measure -> its value; the CPU's is of the time since the last call."""
        found: dict[str, float] = {}
        for monitor in self._monitors:
            monitor.collect_metrics()
            found |= monitor.aggregate_metrics()
            monitor.clear_metrics()
        return found
