"""The sections of the report that list figures: of a stage, and at its end everything there is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from coma_gen.report.content import ReportContent
from coma_gen.report.tables import Table, fidelity_table, listing, memorization_table, music_table


def details(content: ReportContent) -> list[tuple[str, str, list[Table]]]:
    """(anchor, heading, tables) of the sections that list the figures of one stage."""
    head = ("measure", "value")
    music = content.find("sample")
    if isinstance(music, Mapping):
        music = {key: value for key, value in music.items() if key not in ("music", "memorization")}
    training = listing(f"Training on {content.corpus_phrase}.", head, content.find("train"))
    samples = listing(f"The samples of a model of {content.corpus_phrase}.", head, music)
    wanted = (
        ("training", "Training", (training,)),
        ("tokenizer", "Tokenizer", (fidelity_table(content),)),
        ("music", "Generated music", (samples, music_table(content), memorization_table(content))),
    )
    sections = (
        (anchor, heading, [table for table in tables if table is not None])
        for anchor, heading, tables in wanted
    )
    return [section for section in sections if section[2]]


def everything(content: ReportContent) -> list[Table]:
    """Everything measured, stage by stage, and the params, for who looks for one number."""
    named = [(f"metrics/{stage}.json", figures) for stage, figures in content.metrics.items()]
    named.append(("params.yaml", content.params))
    tables = [Table(name, ("key", "value"), _dotted(value)) for name, value in named]
    return [table for table in tables if table.rows]


def _dotted(value: Any, key: str = "") -> list[tuple[str, str]]:
    """Every leaf by its dotted key, as `dvc metrics show` and `-S` spell it, with its JSON value."""
    if isinstance(value, Mapping):
        return [
            leaf
            for name, item in value.items()
            for leaf in _dotted(item, f"{key}.{name}" if key else str(name))
        ]
    return [(key or "value", value if isinstance(value, str) else json.dumps(value, default=str))]
