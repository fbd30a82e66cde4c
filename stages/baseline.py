"""baseline: scores n-gram models on the same tokens as the model; writes metrics only."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # under PYTHONSAFEPATH Python does not
from _start import run


def baseline(params, workspace) -> None:
    """Scores uniform, unigram, bigram and Kneser-Ney n-grams on validation and test."""
    from coma_gen.evaluation.baseline import score_baselines

    metrics = score_baselines(
        params.baseline,
        workspace.data("shards"),
        workspace.data("tokenizer"),
        resamples=params.evaluate.bootstrap_resamples,
    )
    workspace.write_metrics("baseline", metrics)


if __name__ == "__main__":
    run(baseline)
