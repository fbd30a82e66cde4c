"""Summary of a finished run, printed at the end of `make demo`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from coma_gen.core.io import read_json
from coma_gen.workspace.paths import Workspace

KEY = "bits_per_note_10ms"
SPLITS = ("validation", "test")
BASELINES = ("uniform", "unigram", "bigram", "kneser_ney")


def figures(workspace: Workspace) -> str:
    """Formats the number of performances, hours and notes of each split.

    Raises:
        UserError: If the split stage has not run.
    """
    split = read_json(workspace.metrics("split.json"))
    lines = [f"  {'split':<12}{'performances':>14}{'hours':>10}{'notes':>12}"]
    for name in ("train", "validation", "test"):
        of = split[name]
        lines.append(f"  {name:<12}{of['performances']:>14,}{of['hours']:>10.1f}{of['notes']:>12,}")
    return "\n".join(lines)


def summary(workspace: Workspace) -> str:
    """Formats the main figures of a finished run and the locations of its outputs.

    Raises:
        UserError: If a stage has not run.
    """
    metrics = {
        name: read_json(workspace.metrics(f"{name}.json"))
        for name in ("download", "baseline", "evaluate", "train")
    }
    return "\n".join([*_head(metrics), *_likelihood(metrics), *_paths(workspace)])


def _head(metrics: dict[str, Any]) -> Iterator[str]:
    train = metrics["train"]
    corpus = f"{metrics['download']['corpus']}, {metrics['download']['performances']} performances"
    amount = f"{train['steps']:,} steps, {train['tokens']:,} tokens seen"
    yield f"\ncoma-gen: {corpus}"
    yield f"  this model        {train['parameters']:,} parameters, {amount}\n"


def _likelihood(metrics: dict[str, Any]) -> Iterator[str]:
    yield f"  {'bits per note at 10 ms':<24}{'validation':>12}{'test':>12}     (less is better)"
    rows = {name: [metrics["baseline"][split][name] for split in SPLITS] for name in BASELINES}
    rows["this model"] = [metrics["evaluate"][split] for split in SPLITS]
    for name, row in rows.items():
        yield f"  {name.replace('_', ' '):<24}" + "".join(f"{of[KEY]:>12.2f}" for of in row)
    nats, perplexity = (metrics["evaluate"]["test"][key] for key in ("nll_per_token", "perplexity"))
    yield f"  (this model on test: {nats:.3f} nats per token, perplexity {perplexity:.1f})\n"


def _paths(workspace: Workspace) -> Iterator[str]:
    samples = len(list(workspace.data("samples").glob("*.mid")))
    yield f"  look and listen   {_shown(workspace, 'report')}/index.html"
    yield f"  samples           {_shown(workspace, 'samples')}/*.mid ({samples})"
    yield f"  pictures, sound   {_shown(workspace, 'report')}/*.png, *.flac"
    yield "  headline figures  `.venv/bin/dvc metrics show`; all of them: metrics/*.json"
    yield "  runs in MLflow    `make ui`, then open the address that it prints"
    yield "  your experiment   `.venv/bin/dvc exp run -S train.learning_rate=1e-3`, then"
    yield "                    `.venv/bin/dvc exp show --only-changed`"


def _shown(workspace: Workspace, name: str) -> str:
    return workspace.data(name).relative_to(workspace.root).as_posix()
