"""train: trains the conformer on the train split's shards; an interrupted run goes on where it was."""

from importlib import import_module
from pathlib import Path

from _start import run


def train(params, workspace) -> None:
    """Trains in the resume folder of this combination of params, data and code.

    MLflow follows from a process of its own. That module is named, not imported: nothing that training
    computes depends on it, so that an edit of it must not train again.
    """
    from coma_gen.training.run import train_stage
    from coma_gen.workspace.key import training_digest

    key = training_digest(workspace.root)
    follower = import_module("coma_gen.tracking.launch").follow_training(workspace, workspace.resume / key)
    metrics = train_stage(
        params,
        shards=workspace.data("shards"),
        tokenizer=workspace.data("tokenizer"),
        init_from=Path(params.train.init_from) if params.train.init_from else None,
        resume=workspace.resume / key,
        key=key,
        model=workspace.data("model"),
        curve=workspace.metrics("curve.csv"),
    )
    workspace.write_metrics("train", metrics)
    follower.finish()


if __name__ == "__main__":
    run(train)
