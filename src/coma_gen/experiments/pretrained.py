"""Creates the pretrained/ folder from a finished run.

pretrained/
  model/         a model folder as written by the train stage, with the best weights only
  figures.json   scores and origin
  README.md      the model card; its table is generated from figures.json

`python -m coma_gen.experiments.pretrained` uses data/model and the metrics of this checkout; `make
pretrained` calls it after running its preset. No stage reads or writes the folder. Large weights are rounded
to float16, and the card reports the effect.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from coma_gen.core.errors import Fault, UserError
from coma_gen.core.io import read_json, write_atomic
from coma_gen.experiments.dvc_experiments import head
from coma_gen.workspace.paths import Workspace
from coma_gen.workspace.pretrained import NAME

if TYPE_CHECKING:
    from coma_gen.generation.music_generator import MusicGenerator

MAX_BYTES = 8_000_000
"""Maximum size of the weights, since they are part of every clone."""

TABLE = re.compile(r"(?<=<!-- figures -->\n).*?(?=<!-- /figures -->)", re.DOTALL)


def write_pretrained(workspace: Workspace) -> dict[str, Any]:
    """Writes pretrained/ from the model and metrics of this checkout; returns the figures.

    Raises:
        UserError: a stage has not run, or the weights are larger than `MAX_BYTES` even in float16.
    """
    from coma_gen.generation.music_generator import MusicGenerator
    from coma_gen.model.conformer import num_parameters
    from coma_gen.model.serialization import save_model

    source, folder = workspace.data("model"), workspace.root / NAME
    trained = MusicGenerator.load(source)
    numbers = num_parameters(trained.loaded.model)
    dtype: Literal["float32", "float16"] = "float32" if 4 * numbers <= MAX_BYTES else "float16"
    if dtype == "float16" and 2 * numbers > MAX_BYTES:
        rule = f"must have weights of at most {MAX_BYTES:,} bytes in float16"
        raise UserError(Fault(str(source), rule, f"{2 * numbers:,}"))
    made_from = {**trained.loaded.manifest.made_from, "model": trained.loaded.manifest.digest}
    save_model(
        folder / "model",
        trained.loaded.model,
        made_from=made_from,
        tokenizer=source / "tokenizer",
        dtype=dtype,
    )
    figures = _collect_figures(workspace, trained, MusicGenerator.load(folder / "model"))
    figures["stored_as"] = dtype
    write_atomic(folder / "figures.json", json.dumps(figures, indent=2) + "\n")
    card = folder / "README.md"
    write_atomic(card, TABLE.sub(lambda _: card_table(figures), card.read_text()))
    return figures


def score_prompts(generator: MusicGenerator, folder: Path) -> dict[str, float]:
    """Computes bits per note at 10 ms of each MIDI file in a folder, by name."""
    from coma_gen.evaluation.midi_score import score_midi

    return {
        path.name: round(score_midi(generator, path.read_bytes(), name=path.name).bits_per_note_10ms, 4)
        for path in sorted(folder.glob("*.mid"))
    }


def card_table(figures: dict[str, Any]) -> str:
    """Formats the figures as the Markdown table of the model card."""
    return "\n".join(_format_rows(figures)) + "\n"


def _collect_figures(
    workspace: Workspace, trained: MusicGenerator, generator: MusicGenerator
) -> dict[str, Any]:
    """Collects the figures of the run, and scores of the prompts with the original and the stored weights."""
    train, evaluate, baseline = (
        read_json(workspace.metrics(f"{name}.json")) for name in ("train", "evaluate", "baseline")
    )
    key = "bits_per_note_10ms"
    prompts = workspace.root / "examples" / "prompts"
    before, after = score_prompts(trained, prompts), score_prompts(generator, prompts)
    return {
        "commit": head(workspace.root),
        "model": generator.loaded.manifest.digest,
        "parameters": train["parameters"],
        "steps": train["steps"],
        "tokens": train["tokens"],
        "test": {
            "bits_per_note": evaluate["test"][key],
            "nats_per_token": evaluate["test"]["nll_per_token"],
            "five_gram_bits_per_note": baseline["test"]["kneser_ney"][key],
        },
        "validation": {"bits_per_note": evaluate["validation"][key]},
        "prompts": after,
        "rounding": round(max(abs(after[name] - bits) for name, bits in before.items()), 4),
    }


def _format_rows(figures: dict[str, Any]) -> Iterator[str]:
    test = figures["test"]
    yield "| | |"
    yield "| --- | --: |"
    yield f"| parameters | {figures['parameters']:,} |"
    yield f"| trained on | {figures['tokens']:,} tokens in {figures['steps']:,} steps |"
    yield f"| bits per note at 10 ms, MAESTRO's test split | {test['bits_per_note']:.2f} |"
    yield f"| the same of a 5-gram with Kneser-Ney smoothing | {test['five_gram_bits_per_note']:.2f} |"
    yield f"| nats per token, test | {test['nats_per_token']:.3f} |"
    yield f"| bits per note, validation | {figures['validation']['bits_per_note']:.2f} |"
    for name, bits in figures["prompts"].items():
        yield f"| bits per note of examples/prompts/{name} | {bits:.2f} |"
    rounding = f"which moves a prompt's figure by at most {figures['rounding']:.4f}"
    yield f"| weights are stored in | {figures['stored_as']}, {rounding} |"
    yield f"| commit of the run | {figures['commit'][:12]} |"
    yield f"| digest of the model | {figures['model'][:12]} |"


if __name__ == "__main__":
    sys.stdout.write(card_table(write_pretrained(Workspace.here(Path.cwd()))))
