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
"""Values that are asked for: a typical one, one below and one above."""
NEAR = 1.25
"""As in benchmarks/comparison.py: either by so much of the other."""
Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Player:
    """A model that continues prompts.

    Attributes:
        name: in the tables.
        composer: the model.
        prompts: what it continues.
        seconds: of new music behind each.
    """

    name: str
    composer: MusicGenerator
    prompts: Sequence[Notes]
    seconds: float

    def play(self, controls: Controls) -> list[Continuation]:
        """A continuation of each prompt; a key is that of each."""
        groups = [[prompt] for prompt in self.prompts] if controls.key else [list(self.prompts)]
        pieces = []
        for group in groups:
            pieces += generate_batch(
                self.composer,
                group,
                seconds=self.seconds,
                sampling=SamplingParams(top_p=0.95),
                seed=0,
                max_tokens=4_000,
                controls=controls,
                desc=None,
            )
        return pieces

    def measured(self, name: str, pieces: Sequence[Continuation]) -> Values:
        """(N,) a measure of what is new in each piece; NaN for loudness and register of no notes."""
        return np.array([MEASURES[name](piece.new, self.seconds) for piece in pieces])


MEASURES: dict[str, Callable[[Notes, float], float]] = {
    "density": lambda new, seconds: len(new) / seconds,
    "loudness": lambda new, _: float(new.velocity.mean()) if len(new) else float("nan"),
    "register": lambda new, _: float(new.pitch.mean()) if len(new) else float("nan"),
    "polyphony": lambda new, seconds: float(new.duration.sum()) / seconds,
}


def valid(*groups: Sequence[Continuation]) -> str:
    """The share of pieces that obey the grammar."""
    return f"{np.mean([piece.valid for pieces in groups for piece in pieces]):.0%}"


def wish_rows(player: Player, strength: float) -> Iterator[str]:
    """How often and how far each measure moves with a wish."""
    told = player.composer.loaded.model.params.conditions
    plain = player.play(Controls())
    for name in CONDITIONS:
        if name == "polyphony" and name not in told:
            continue
        up, down = (player.play(_wish(name, sign * strength)) for sign in (1, -1))
        values = [player.measured(name, pieces) for pieces in (up, plain, down)]
        means = " | ".join(f"{np.nanmean(each):.1f}" for each in values)
        how, moved = "condition" if name in told else "pull", np.mean(values[0] > values[2])
        yield f"| {player.name} | {name} | {how} | {means} | {moved:.0%} | {valid(up, plain, down)} |"
    keyed = player.play(Controls(key=PROMPT_KEY))
    with_key, without = (
        np.array([inside(piece.new, prompt) for piece, prompt in zip(pieces, player.prompts, strict=True)])
        for pieces in (keyed, plain)
    )
    means = f"{np.nanmean(with_key):.2f} | {np.nanmean(without):.2f} | -"
    moved = np.mean(with_key >= without)
    yield f"| {player.name} | key, as the prompt | pull | {means} | {moved:.0%} | {valid(keyed)} |"


def _wish(name: str, strength: float) -> Controls:
    wishes: dict[str, Any] = {name: strength}
    return Controls(**wishes)


def target_rows(player: Player) -> Iterator[str]:
    """What comes when a value is asked for."""
    for name in player.composer.loaded.model.params.conditions:
        for asked in TARGETS[name]:
            pieces = player.play(Controls(target=f"{name}={asked}"))
            got = player.measured(name, pieces)
            low, middle, high = np.nanquantile(got, (0.25, 0.5, 0.75))
            near = np.mean((got <= NEAR * asked) & (asked <= NEAR * got))
            yield (
                f"| {player.name} | {name} | {asked} | {middle:.1f} | {low:.1f} to {high:.1f} | {near:.0%} | "
                f"{valid(pieces)} |"
            )


def inside(notes: Notes, prompt: Notes) -> float:
    """The share of notes that are of the scale of the prompt's key."""
    tonic, mode = key_of(prompt)
    steps = (0, 2, 4, 5, 7, 9, 11) if mode == "major" else (0, 2, 3, 5, 7, 8, 10, 11)
    return (
        float(np.isin((notes.pitch.astype(int) - tonic) % 12, steps).mean()) if len(notes) else float("nan")
    )


def measure(
    models: Sequence[tuple[str, Path]], data: Path, *, count: int, seconds: float, strength: float
) -> str:
    """The tables of some models.

    Args:
        models: the name and the folder of each.
        data: with shards.
        count: of prompts.
        seconds: of new music behind each.
        strength: of each wish.
    """
    wishes = [
        "| model | wish | by | up | as it is | down | moved as asked | valid |",
        "|---|---|---|" + "---|" * 5,
    ]
    targets = [
        "| model | target | asked | got, median | half of them | within 25% | valid |",
        "|---|" + "---|" * 6,
    ]
    with deterministic(1):
        for name, folder in models:
            composer = MusicGenerator.load(folder)
            player = Player(name, composer, _prompts(data, composer, count), seconds)
            wishes += wish_rows(player, strength)
            targets += target_rows(player)
    told = f"{count} prompts, {seconds:g} s of new music each, wishes of {strength:g}"
    return "\n".join([*wishes, "", *([*targets, ""] if len(targets) > 2 else []), told])


def _prompts(data: Path, composer: MusicGenerator, count: int) -> list[Notes]:
    """Passages of 6 s of both splits, at their beginnings."""
    found: list[Notes] = []
    for split in ("test", "train"):
        shards = ShardedSplit.open(data / "shards", split, copies=False)
        cut = cut_excerpts(shards, composer.tokenizer.vocabulary, count=count, seconds=6.0)
        found += [each.notes for each in cut if len(each.notes) >= 8]
    return found[:count]


def main() -> None:
    """Reads the command line and prints the tables."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.controls",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--model", action="append", help="a folder, or pretrained; may be given again (default: data/model)")
    add("--data", type=Path, default=DATA, help="with shards/ (default: data)")
    add("--count", type=int, default=50, help="prompts (default: 50)")
    add("--seconds", type=float, default=10.0, help="of new music (default: 10)")
    add("--strength", type=float, default=1.0, help="of each wish (default: 1)")
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
