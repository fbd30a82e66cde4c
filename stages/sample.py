"""sample: music from nothing, and continuations of the first seconds of test performances, as MIDI."""

from _start import run


def sample(params, workspace) -> None:
    """Draws every sample with its own seed, and writes its settings beside it."""
    from coma_gen.evaluation.music import sample_metrics
    from coma_gen.generation.samples import write_samples

    pieces = write_samples(
        params.sample,
        workspace.data("model"),
        workspace.data("split"),
        workspace.data("corpus"),
        workspace.data("samples"),
        device=params.runtime.device,
        threads=params.runtime.threads,
    )
    metrics = sample_metrics(
        pieces, workspace.data("split"), workspace.data("corpus"), seconds=params.sample.seconds
    )
    workspace.write_metrics("sample", metrics)


if __name__ == "__main__":
    run(sample)
