"""train: trains the conformer on the shards of the train split; interrupted runs are resumed."""

import os
import sys
from importlib import import_module
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # under PYTHONSAFEPATH Python does not
from _start import run


def train(params, workspace) -> None:
    """Trains in the resume folder of this combination of params, data and code.

    A separate process logs to MLflow. The tracking modules are imported by name, so that they are not in the
    stage's dependencies: editing them must not cause training to run again.
    """
    from coma_gen.model.processes import choose_ranks
    from coma_gen.training.launch import is_first_rank, is_rank, launch_ranks

    if not is_rank() and workspace.data("corpus").exists():  # without the corpus there is no MLflow logging
        import_module("coma_gen.tracking.uri").check_address(workspace.home)
    processes = 1 if is_rank() else choose_ranks(params.runtime, params.train)
    if processes > 1:
        launch_ranks([sys.executable, str(Path(__file__).resolve())], processes=processes)
        return
    from coma_gen.training.stage import train_stage
    from coma_gen.workspace.fingerprint import training_digest

    key = training_digest(workspace.root)
    resume = workspace.resume / key
    follower = None
    if is_first_rank():
        follower = import_module("coma_gen.tracking.launch").follow_training(workspace, resume)
    metrics = train_stage(
        params,
        shards=workspace.data("shards"),
        tokenizer=workspace.data("tokenizer"),
        init_from=Path(params.train.init_from) if params.train.init_from else None,
        teacher=workspace.model_folder(params.train.teacher) if params.train.teacher else None,
        resume=resume,
        key=key,
        model=workspace.data("model"),
        curve=workspace.metrics("curve.csv"),
        events=workspace.home / "tensorboard" / f"{os.environ.get('DVC_EXP_NAME') or 'workspace'}-{key[:8]}",
    )
    if metrics is not None:
        workspace.write_metrics("train", metrics)
        follower.finish()


if __name__ == "__main__":
    run(train)
