"""A run and a model version in words: what it is, how good, what is different, and how to have it again."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from coma_gen.evaluation.headline import RANKED_BY

NOTHING = "nothing"
MAX_SHOWN = 60
"""Characters of a changed setting's value."""
Settings = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Story:
    """What is told of an experiment besides its figures.

    Attributes:
        name: DVC's name of it, or "workspace".
        corpus: such as maestro-mini.
        model: what kind of model it is, such as "conformer".
        performances: of the train split; None where that is unknown.
        hours: the same.
        changed: section -> key -> value of every setting that is not the committed one; None without git.
        flags: the `-S` flags of `dvc exp run` that make these changes.
        commit: what the code was at.
        is_experiment: whether DVC has it as an experiment.
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
        """All changed settings in a line; "nothing" where there are none."""
        settings = self.changed or {}
        words = [
            f"{section}.{key}={_short(value)}"
            for section, keys in settings.items()
            for key, value in keys.items()
        ]
        return " ".join(words) or NOTHING


def run_note(story: Story, figures: Mapping[str, float], page: str) -> str:
    """A run's description, in Markdown.

    Args:
        story: what to tell.
        figures: the headline.
        page: the run's own page in MLflow, from `#` on.
    """
    again = f"Again: `{_command(story)}`"
    if story.changed is not None:
        again = f"Changed in params.yaml: `{story.changes()}`. {again}"
    lines = [f"Report, with pictures and sound: [index.html]({page}/artifacts/report/index.html)"]
    if story.is_experiment:
        lines.append(f"Its files into the checkout: `dvc exp apply {shlex.quote(story.name)}`")
    bullets = "\n".join(f"- {line}" for line in lines)
    return "\n\n".join([_result(story, figures), again, bullets, _made(story, figures)])


def version_note(story: Story, figures: Mapping[str, float], page: str, version: int) -> str:
    """A model version's description, in Markdown."""
    use = f"coma-gen generate --model models:/coma-gen/{version}"
    serve = f"coma-gen serve --model models:/coma-gen/{version}"
    return "\n\n".join(
        [
            _result(story, figures),
            _made(story, figures),
            f"- Made by the run [{story.name}]({page})\n"
            f"- Music from it: `{use} my.mid`\n"
            f'- Over HTTP: `{serve}`, which answers `{{"inputs": [{{"seconds": 20, "seed": 1}}]}}`',
        ]
    )


def _result(story: Story, figures: Mapping[str, float]) -> str:
    bits = figures.get(RANKED_BY)
    if bits is None:
        return f"A {story.model} on {story.corpus}, not scored."
    low, high = figures.get("low"), figures.get("high")
    interval = f" (95%: {low:.2f} to {high:.2f})" if low is not None and high is not None else ""
    text = f"**{bits:.2f} bits per note**{interval} on the test split of {story.corpus}"
    if (ngram := figures.get("ngram")) is not None:
        side = "fewer" if bits <= ngram else "more"
        text += f", {abs(ngram - bits):.2f} {side} than the best n-gram's {ngram:.2f}"
    if (validation := figures.get("validation")) is not None:
        text += f"; {validation:.2f} on validation"
    return text + "."


def _made(story: Story, figures: Mapping[str, float]) -> str:
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


def _command(story: Story) -> str:
    command = "dvc repro"
    if story.changed:
        command = shlex.join(["dvc", "exp", "run", *story.flags])
    return f"git checkout {story.commit[:8]} && {command}" if story.commit else command


def _short(value: Any) -> str:
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 3]}..."
