"""headline: the few figures that runs are compared by, out of the other stages' metrics."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # under PYTHONSAFEPATH Python does not
from _start import run


def headline(_params, workspace) -> None:
    """Writes what `dvc exp show` and `dvc metrics` show of a run."""
    from coma_gen.evaluation import headline as figures
    from coma_gen.files import read_json

    metrics = {stage: read_json(workspace.metrics(f"{stage}.json")) for stage in figures.STAGES}
    workspace.write_metrics("headline", figures.headline(metrics))


if __name__ == "__main__":
    run(headline)
