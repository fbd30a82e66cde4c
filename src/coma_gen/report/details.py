"""The sections of the report that list figures: one for each topic, and finally all metrics."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from coma_gen.report.content import ReportContent
from coma_gen.report.tables import Table, fidelity_table, list_values, memorization_table, music_table


def details(content: ReportContent) -> list[tuple[str, str, list[Table]]]:
    """Builds the sections that list the figures of one stage, as (anchor, heading, tables)."""
    head = ("measure", "value")
    music = content.find("sample")
    if isinstance(music, Mapping):
        music = {key: value for key, value in music.items() if key not in ("music", "memorization")}
    training = list_values(f"Training on {content.corpus_phrase}.", head, content.find("train"))
    samples = list_values(f"Samples of a model trained on {content.corpus_phrase}.", head, music)
    candidates = (
        ("training", "Training", (training,)),
        ("tokenizer", "Tokenizer", (fidelity_table(content),)),
        ("music", "Generated music", (samples, music_table(content), memorization_table(content))),
    )
    sections = (
        (anchor, heading, [table for table in tables if table is not None])
        for anchor, heading, tables in candidates
    )
    return [section for section in sections if section[2]]


def everything(content: ReportContent) -> list[Table]:
    """Lists every metric of every stage, and the params."""
    named = [(f"metrics/{stage}.json", figures) for stage, figures in content.metrics.items()]
    named.append(("params.yaml", content.params))
    tables = [Table(name, ("key", "value"), _flatten(value)) for name, value in named]
    return [table for table in tables if table.rows]


def _flatten(value: Any, key: str = "") -> list[tuple[str, str]]:
    """Lists (dotted key, JSON value) of every leaf, with keys as in `dvc metrics show`."""
    if isinstance(value, Mapping):
        return [
            leaf
            for name, item in value.items()
            for leaf in _flatten(item, f"{key}.{name}" if key else str(name))
        ]
    return [(key or "value", value if isinstance(value, str) else json.dumps(value, default=str))]
