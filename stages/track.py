"""track: makes this run's record in MLflow complete, computed here or restored from a cache."""

import gc
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # under PYTHONSAFEPATH Python does not
from _start import run


def track(params, workspace) -> None:
    """Sends what the store lacks, then removes the checkpoints that a finished run no longer needs."""
    from coma_gen.tracking.follow import GARBAGE

    gc.set_threshold(GARBAGE)
    from coma_gen.tracking.stage import track_workspace

    track_workspace(params, workspace)


if __name__ == "__main__":
    run(track)
