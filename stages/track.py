"""track: makes this run's record in MLflow complete, computed here or restored from a cache."""

import gc
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # under PYTHONSAFEPATH Python does not
from _start import run


def track(params, workspace) -> None:
    """Sends what the store lacks, then removes the checkpoints that a finished run no longer needs."""
    gc.disable()  # a third of loading MLflow is looking for garbage
    sys.modules["scipy"] = None  # MLflow loads it where it is there, and needs it for no model of ours
    from coma_gen.tracking.stage import track_workspace

    track_workspace(params, workspace)


if __name__ == "__main__":
    run(track)
