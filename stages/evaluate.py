"""evaluate: computes the likelihood of the validation and test performances, each token scored once."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # under PYTHONSAFEPATH Python does not
from _start import run


def evaluate(params, workspace) -> None:
    """Scores whole performances with the carried state, and windows for comparison.

    Writes results by split, performance and composer.
    """
    from coma_gen.core.artifact import read_manifest, write_manifest
    from coma_gen.evaluation.stage import score_model
    from coma_gen.model.processes import choose_processes

    metrics = score_model(
        params.evaluate,
        workspace.data("model"),
        workspace.data("shards"),
        workspace.data("evaluation"),
        device=params.runtime.device,
        threads=params.runtime.threads,
        processes=choose_processes(params.runtime),
    )
    made_from = {"model": read_manifest(workspace.data("model"), kind="model").digest}
    write_manifest(workspace.data("evaluation"), kind="evaluation", made_from=made_from, settings={})
    workspace.write_metrics("evaluate", metrics)


if __name__ == "__main__":
    run(evaluate)
