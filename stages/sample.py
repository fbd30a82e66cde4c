"""sample: generates unprompted music and continuations of test performances as MIDI files."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # under PYTHONSAFEPATH Python does not
from _start import run


def sample(params, workspace) -> None:
    """Generates each sample with its own seed, writes its settings, and compares samples with real music."""
    from coma_gen.core.artifact import write_manifest
    from coma_gen.evaluation.calibration import calibrate_sampler
    from coma_gen.evaluation.sample_metrics import sample_metrics
    from coma_gen.generation.stage import write_samples
    from coma_gen.model.processes import choose_processes

    pieces = write_samples(
        params.sample,
        workspace.data("model"),
        workspace.data("split"),
        workspace.data("corpus"),
        workspace.data("samples"),
        device=params.runtime.device,
        threads=params.runtime.threads,
        processes=choose_processes(params.runtime),
    )
    metrics = sample_metrics(
        params.sample,
        pieces,
        workspace.data("model"),
        workspace.data("shards"),
        workspace.data("samples"),
    )
    metrics["calibration"] = calibrate_sampler(
        params.sample,
        workspace.data("model"),
        workspace.data("shards"),
        device=params.runtime.device,
        threads=params.runtime.threads,
    )
    write_manifest(workspace.data("samples"), kind="samples", made_from={}, settings={})
    workspace.write_metrics("sample", metrics)


if __name__ == "__main__":
    run(sample)
