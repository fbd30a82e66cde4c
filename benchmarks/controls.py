"""Do the musical controls and targets have the intended effect?

    python -m benchmarks.controls                          the model of data/
    python -m benchmarks.controls --model pretrained --model /a/model/with/conditions

Prompts (passages of the test and train splits) are continued with one seed without controls, and with each
control up and down: by a bias on the logits, or by the condition if the model has it. The result is the
fraction of pieces whose measure is higher with the control up than down; for the key, the fraction in which
the proportion of notes in the key does not decrease. For models with conditions, target values are compared
with the measured values, and with the fraction of pieces within 25% of the target.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from coma_gen.config.schema import CONDITIONS
from coma_gen.evaluation.excerpts import cut_excerpts
from coma_gen.generation.continuation import Continuation
from coma_gen.generation.controls import PROMPT_KEY, Controls, key_of
from coma_gen.generation.generate import generate_batch
from coma_gen.generation.music_generator import MusicGenerator
from coma_gen.generation.sampling import SamplingParams
from coma_gen.midi.notes import Notes
from coma_gen.model.device import deterministic
from coma_gen.shards.read import ShardedSplit
from coma_gen.tracking.model_store import named_model
from coma_gen.workspace.paths import Workspace

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "data"
TARGETS = {"density": (4, 8, 16), "loudness": (45, 60, 75), "register": (56, 64, 72), "polyphony": (2, 4, 8)}
"""Requested values: a low, a typical and a high one."""
NEAR = 1.25
"""As in benchmarks/comparison.py: the larger of two near values is at most this many times the smaller."""
Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Subject:
    """A model and the prompts that it continues.

    Attributes:
        name: Name in the tables.
        generator: The model.
        prompts: The prompts.
        seconds: Length of the new music.
    """

    name: str
    generator: MusicGenerator
    prompts: Sequence[Notes]
    seconds: float

    def continue_prompts(self, controls: Controls) -> list[Continuation]:
        """Continues each prompt; `controls.key` is resolved per prompt."""
        groups = [[prompt] for prompt in self.prompts] if controls.key else [list(self.prompts)]
        pieces = []
        for group in groups:
            pieces += generate_batch(
                self.generator,
                group,
                seconds=self.seconds,
                sampling=SamplingParams(top_p=0.95),
                seed=0,
                max_tokens=4_000,
                controls=controls,
                desc=None,
            )
        return pieces

    def measure(self, name: str, pieces: Sequence[Continuation]) -> Values:
        """Measures the new part of each piece (N,); NaN for the loudness and register of no notes."""
        return np.array([MEASURES[name](piece.new, self.seconds) for piece in pieces])


MEASURES: dict[str, Callable[[Notes, float], float]] = {
    "density": lambda new, seconds: len(new) / seconds,
    "loudness": lambda new, _: float(new.velocity.mean()) if len(new) else float("nan"),
    "register": lambda new, _: float(new.pitch.mean()) if len(new) else float("nan"),
    "polyphony": lambda new, seconds: float(new.duration.sum()) / seconds,
}


def valid_share(*groups: Sequence[Continuation]) -> str:
    """Formats the share of pieces that obey the grammar."""
    return f"{np.mean([piece.valid for pieces in groups for piece in pieces]):.0%}"


def control_rows(subject: Subject, strength: float) -> Iterator[str]:
    """Yields a row per control: the mean measures, and how often the measure moves as requested."""
    conditions = subject.generator.loaded.model.params.conditions
    plain = subject.continue_prompts(Controls())
    for name in CONDITIONS:
        if name == "polyphony" and name not in conditions:
            continue
        up, down = (subject.continue_prompts(_build_controls(name, sign * strength)) for sign in (1, -1))
        values = [subject.measure(name, pieces) for pieces in (up, plain, down)]
        means = " | ".join(f"{np.nanmean(each):.1f}" for each in values)
        method, moved = "condition" if name in conditions else "bias", np.mean(values[0] > values[2])
        valid = valid_share(up, plain, down)
        yield f"| {subject.name} | {name} | {method} | {means} | {moved:.0%} | {valid} |"
    keyed = subject.continue_prompts(Controls(key=PROMPT_KEY))
    with_key, without = (
        np.array(
            [share_in_key(piece.new, prompt) for piece, prompt in zip(pieces, subject.prompts, strict=True)]
        )
        for pieces in (keyed, plain)
    )
    means = f"{np.nanmean(with_key):.2f} | {np.nanmean(without):.2f} | -"
    moved = np.mean(with_key >= without)
    yield f"| {subject.name} | key, as the prompt | bias | {means} | {moved:.0%} | {valid_share(keyed)} |"


def _build_controls(name: str, strength: float) -> Controls:
    values: dict[str, Any] = {name: strength}
    return Controls(**values)


def target_rows(subject: Subject) -> Iterator[str]:
    """Yields a row per requested value: the distribution of the measured values."""
    for name in subject.generator.loaded.model.params.conditions:
        for requested in TARGETS[name]:
            pieces = subject.continue_prompts(Controls(target=f"{name}={requested}"))
            got = subject.measure(name, pieces)
            low, middle, high = np.nanquantile(got, (0.25, 0.5, 0.75))
            near = np.mean((got <= NEAR * requested) & (requested <= NEAR * got))
            yield (
                f"| {subject.name} | {name} | {requested} | {middle:.1f} | {low:.1f} to {high:.1f} | "
                f"{near:.0%} | {valid_share(pieces)} |"
            )


def share_in_key(notes: Notes, prompt: Notes) -> float:
    """Computes the share of notes in the scale of the prompt's key."""
    tonic, mode = key_of(prompt)
    steps = (0, 2, 4, 5, 7, 9, 11) if mode == "major" else (0, 2, 3, 5, 7, 8, 10, 11)
    return (
        float(np.isin((notes.pitch.astype(int) - tonic) % 12, steps).mean()) if len(notes) else float("nan")
    )


def measure(
    models: Sequence[tuple[str, Path]], data: Path, *, count: int, seconds: float, strength: float
) -> str:
    """Computes the tables of some models.

    Args:
        models: Name and folder of each model.
        data: Folder that contains shards/.
        count: Number of prompts.
        seconds: Length of the new music.
        strength: Absolute value of each control.
    """
    controls = [
        "| model | control | method | up | off | down | moved as requested | valid |",
        "|---|---|---|" + "---|" * 5,
    ]
    targets = [
        "| model | target | requested | median result | middle half | within 25% | valid |",
        "|---|" + "---|" * 6,
    ]
    with deterministic(1):
        for name, folder in models:
            generator = MusicGenerator.load(folder)
            subject = Subject(name, generator, _prompts(data, generator, count), seconds)
            controls += control_rows(subject, strength)
            targets += target_rows(subject)
    settings = f"{count} prompts, {seconds:g} s of new music each, controls at +-{strength:g}"
    return "\n".join([*controls, "", *([*targets, ""] if len(targets) > 2 else []), settings])


def _prompts(data: Path, generator: MusicGenerator, count: int) -> list[Notes]:
    """Cuts 6 s prompts from passages of both splits."""
    prompts: list[Notes] = []
    for split in ("test", "train"):
        shards = ShardedSplit.open(data / "shards", split, copies=False)
        cut = cut_excerpts(shards, generator.tokenizer.vocabulary, count=count, seconds=6.0)
        prompts += [each.notes for each in cut if len(each.notes) >= 8]
    return prompts[:count]


def main() -> None:
    """Reads the command line and prints the tables."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.controls",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--model", action="append", help="a folder, or pretrained; may be given again (default: data/model)")
    add("--data", type=Path, default=DATA, help="folder that contains shards/ (default: data)")
    add("--count", type=int, default=50, help="number of prompts (default: 50)")
    add("--seconds", type=float, default=10.0, help="length of the new music (default: 10)")
    add("--strength", type=float, default=1.0, help="absolute value of each control (default: 1)")
    options = parser.parse_args()
    with ExitStack() as stack:
        models = [
            (Path(name).name, stack.enter_context(named_model(name, Workspace.around(ROOT))))
            for name in options.model or [str(options.data / "model")]
        ]
        text = measure(
            models, options.data, count=options.count, seconds=options.seconds, strength=options.strength
        )
    print(text)


if __name__ == "__main__":
    main()
