"""headline: collects the main metrics and the plot data of a run from the results of the other stages."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # under PYTHONSAFEPATH Python does not
from _start import run


def headline(_params, workspace) -> None:
    """Writes the files that `dvc exp show`, `dvc metrics` and `dvc plots` display."""
    import csv

    import pyarrow.parquet as pq

    from coma_gen.core.artifact import verify_artifact
    from coma_gen.core.io import read_json, write_atomic
    from coma_gen.evaluation import headline as figures
    from coma_gen.evaluation.plots import plot_tables

    evaluation = workspace.data("evaluation")
    verify_artifact(evaluation, kind="evaluation")
    metrics = {stage: read_json(workspace.metrics(f"{stage}.json")) for stage in figures.STAGES}
    curve = csv.DictReader(workspace.metrics("curve.csv").read_text(encoding="utf-8").splitlines())
    contexts = pq.read_table(evaluation / "contexts.parquet").to_pylist()
    for name, text in plot_tables(metrics, curve, contexts).items():
        write_atomic(workspace.metrics(name), text)
    workspace.write_metrics("headline", figures.headline(metrics))


if __name__ == "__main__":
    run(headline)
