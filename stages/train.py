"""train: trains the conformer on the train split's shards; an interrupted run goes on where it was."""

from _start import run


def train(params, workspace) -> None:
    """Trains in the resume folder of this combination of params, data and code; live metrics go to MLflow beside it."""
    from coma_gen.tracking.launch import start_follower
    from coma_gen.training.run import train_stage
    from coma_gen.workspace.key import training_digest

    key = training_digest(workspace.root)
    resume = workspace.resume / key
    start_follower(workspace, resume)
    metrics = train_stage(
        params,
        shards=workspace.data("shards"),
        tokenizer=workspace.data("tokenizer"),
        init_from=workspace.own_folder(params.train.init_from) if params.train.init_from else None,
        resume=resume,
        key=key,
        model=workspace.data("model"),
        curve=workspace.metrics("curve.csv"),
    )
    workspace.write_metrics("train", metrics)


if __name__ == "__main__":
    run(train)
