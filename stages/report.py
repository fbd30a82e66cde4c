"""report: writes one offline HTML page with metrics, curves, piano rolls and audio."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # under PYTHONSAFEPATH Python does not
from _start import run


def report(params, workspace) -> None:
    """Draws all figures, renders all audio, and embeds them in data/report/index.html."""
    from coma_gen.core.artifact import verify_artifact, write_manifest
    from coma_gen.report.stage import write_report

    evaluation, _ = (verify_artifact(workspace.data(kind), kind=kind) for kind in ("evaluation", "samples"))
    write_report(
        params.report,
        metrics=workspace.root / "metrics",
        samples=workspace.data("samples"),
        evaluation=workspace.data("evaluation"),
        destination=workspace.data("report"),
        model_digest=evaluation.made_from.get("model"),
    )
    write_manifest(workspace.data("report"), kind="report", made_from={}, settings={})


if __name__ == "__main__":
    run(report)
