"""track: completes this run's record in MLflow, whether it was computed or restored from the DVC cache."""

import gc
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # under PYTHONSAFEPATH Python does not
from _start import run


def track(params, workspace) -> None:
    """Logs what MLflow lacks, then removes the checkpoints of the finished run."""
    gc.disable()  # garbage collection takes a third of MLflow's import time
    sys.modules["scipy"] = None  # MLflow imports it if it is installed, but our models do not need it
    from coma_gen.tracking.stage import track_workspace

    track_workspace(params, workspace)


if __name__ == "__main__":
    run(track)
