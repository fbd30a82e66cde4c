"""Markdown descriptions of runs and model versions: scores, changed settings, and how to reproduce them."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from coma_gen.evaluation.headline import RANKED_BY

NOTHING = "nothing"
MAX_SHOWN = 60
"""Longer values of changed settings are truncated to this many characters."""
Settings = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Story:
    """Facts in the description of an experiment besides its figures.

    Attributes:
        name: Name of the DVC experiment, or "workspace".
        corpus: Name of the corpus, such as maestro-mini.
        model: Type of the model, such as "conformer".
        performances: Performances in the train split, or None if unknown.
        hours: Hours of music in the train split, or None if unknown.
        changed: Section -> key -> value of every setting that differs from the committed one; None without
            git.
        flags: The `-S` flags of `dvc exp run` that make these changes.
        commit: Git commit of the code.
        is_experiment: Whether the run is a DVC experiment.
    """

    name: str
    corpus: str
    model: str = "model"
    performances: int | None = None
    hours: float | None = None
    changed: Settings | None = None
    flags: tuple[str, ...] = ()
    commit: str | None = None
    is_experiment: bool = False

    def changes(self) -> str:
        """Formats all changed settings in one line, or "nothing"."""
        settings = self.changed or {}
        words = [
            f"{section}.{key}={_shorten(value)}"
            for section, keys in settings.items()
            for key, value in keys.items()
        ]
        return " ".join(words) or NOTHING


def run_note(story: Story, figures: Mapping[str, float], page: str) -> str:
    """Composes the description of a run in Markdown.

    Args:
        story: Facts about the experiment.
        figures: Headline figures.
        page: Fragment (from `#` on) of the run's page in MLflow.
    """
    reproduce = f"To reproduce: `{_compose_command(story)}`"
    if story.changed is not None:
        reproduce = f"Changed in params.yaml: `{story.changes()}`. {reproduce}"
    lines = [f"Report with piano rolls and sound: [index.html]({page}/artifacts/report/index.html)"]
    if story.is_experiment:
        lines.append(f"To restore its files in the checkout: `dvc exp apply {shlex.quote(story.name)}`")
    bullets = "\n".join(f"- {line}" for line in lines)
    return "\n\n".join(
        [_describe_result(story, figures), reproduce, bullets, _describe_model(story, figures)]
    )


def version_note(story: Story, figures: Mapping[str, float], page: str, version: int) -> str:
    """Composes the description of a model version in Markdown."""
    use = f"coma-gen generate --model models:/coma-gen/{version}"
    serve = f"coma-gen serve --model models:/coma-gen/{version}"
    return "\n\n".join(
        [
            _describe_result(story, figures),
            _describe_model(story, figures),
            f"- Trained by the run [{story.name}]({page})\n"
            f"- To generate music: `{use} my.mid`\n"
            f'- To serve it over HTTP: `{serve}`; request: `{{"inputs": [{{"seconds": 20, "seed": 1}}]}}`',
        ]
    )


def _describe_result(story: Story, figures: Mapping[str, float]) -> str:
    bits = figures.get(RANKED_BY)
    if bits is None:
        return f"A {story.model} on {story.corpus}, not scored."
    low, high = figures.get("low"), figures.get("high")
    interval = f" (95% CI {low:.2f} to {high:.2f})" if low is not None and high is not None else ""
    text = f"**{bits:.2f} bits per note**{interval} on the test split of {story.corpus}"
    if (ngram := figures.get("ngram")) is not None:
        side = "fewer" if bits <= ngram else "more"
        text += f", {abs(ngram - bits):.2f} {side} than the best n-gram model ({ngram:.2f})"
    if (validation := figures.get("validation")) is not None:
        text += f"; {validation:.2f} on validation"
    return text + "."


def _describe_model(story: Story, figures: Mapping[str, float]) -> str:
    text = f"A {story.model}"
    if (parameters := figures.get("parameters")) is not None:
        text += f" of {parameters:,.0f} parameters"
    text += ", trained on "
    if (tokens := figures.get("tokens")) is not None:
        text += f"{tokens:,.0f} tokens of "
    text += story.corpus
    if story.performances is not None and story.hours is not None:
        text += f" ({story.performances:,} performances, {story.hours:.1f} hours)"
    return text + "."


def _compose_command(story: Story) -> str:
    command = "dvc repro"
    if story.changed:
        command = shlex.join(["dvc", "exp", "run", *story.flags])
    return f"git checkout {story.commit[:8]} && {command}" if story.commit else command


def _shorten(value: Any) -> str:
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 3]}..."
