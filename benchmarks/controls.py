"""Do musical wishes move the music the way they ask?

    python -m benchmarks.controls

Each of a number of prompts (passages of the test and train splits) is continued with one seed as it is, and
with each wish up and down. Counted is in how many pieces the measure with the wish up is above that with the
wish down; for the key, in how many the share of its notes is not below that without.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from coma_gen.evaluation.excerpts import excerpts
from coma_gen.generation.controls import AS_THE_PROMPT, Controls, key_of
from coma_gen.generation.generate import Continuation, generate_batch
from coma_gen.generation.music_generator import MusicGenerator
from coma_gen.generation.sampling import SamplingParams
from coma_gen.midi.notes import Notes
from coma_gen.model.device import deterministic
from coma_gen.shards.read import ShardedSplit

DATA = Path(__file__).resolve().parents[1] / "data"


def measures(piece: Continuation, seconds: float) -> dict[str, float]:
    """Notes a second, mean velocity and mean pitch of what is new."""
    new = piece.new
    return {
        "density": len(new) / seconds,
        "loudness": float(new.velocity.mean()) if len(new) else float("nan"),
        "register": float(new.pitch.mean()) if len(new) else float("nan"),
    }


def inside(notes: Notes, prompt: Notes) -> float:
    """The share of notes that are of the scale of the prompt's key."""
    tonic, mode = key_of(prompt)
    steps = (0, 2, 4, 5, 7, 9, 11) if mode == "major" else (0, 2, 3, 5, 7, 8, 10, 11)
    return (
        float(np.isin((notes.pitch.astype(int) - tonic) % 12, steps).mean()) if len(notes) else float("nan")
    )


def measure(data: Path, *, count: int, seconds: float, strength: float) -> str:
    """A table of how often and how far each measure moves.

    Args:
        data: with model and shards.
        count: of prompts.
        seconds: of new music behind each.
        strength: of each wish.
    """
    composer = MusicGenerator.load(data / "model")
    prompts = _prompts(data, composer, count)

    def continued(controls: Controls, chosen: list[Notes]) -> list[Continuation]:
        return generate_batch(
            composer,
            chosen,
            seconds=seconds,
            choice=SamplingParams(top_p=0.95),
            seed=0,
            max_tokens=4_000,
            controls=controls,
            desc=None,
        )

    lines = ["| wish | up | as it is | down | moved as asked | valid |", "|---|---|---|---|---|---|"]
    with deterministic(1):
        plain = continued(Controls(), prompts)
        for name in ("density", "loudness", "register"):
            found = {
                1: continued(_wish(name, strength), prompts),
                0: plain,
                -1: continued(_wish(name, -strength), prompts),
            }
            values = {
                sign: np.array([measures(piece, seconds)[name] for piece in pieces])
                for sign, pieces in found.items()
            }
            moved = np.mean(values[1] > values[-1])
            valid = np.mean([piece.valid for pieces in found.values() for piece in pieces])
            means = " | ".join(f"{np.nanmean(values[sign]):.1f}" for sign in (1, 0, -1))
            lines.append(f"| {name} | {means} | {moved:.0%} | {valid:.0%} |")
        keyed = [continued(Controls(key=AS_THE_PROMPT), [prompt])[0] for prompt in prompts]
    shares = [
        np.array([inside(piece.new, prompt) for piece, prompt in zip(pieces, prompts, strict=True)])
        for pieces in (keyed, plain)
    ]
    moved = np.mean(shares[0] >= shares[1])
    valid = np.mean([piece.valid for piece in keyed])
    lines.append(
        f"| key, as the prompt | {np.nanmean(shares[0]):.2f} | {np.nanmean(shares[1]):.2f} | "
        f"- | {moved:.0%} | {valid:.0%} |"
    )
    return "\n".join([*lines, "", f"{count} prompts, {seconds:g} s of new music each, strength {strength:g}"])


def _wish(name: str, strength: float) -> Controls:
    strengths = {each: strength if each == name else 0.0 for each in ("density", "loudness", "register")}
    return Controls(strengths["density"], strengths["loudness"], strengths["register"])


def _prompts(data: Path, composer: MusicGenerator, count: int) -> list[Notes]:
    """Passages of 6 s of both splits, at their beginnings."""
    found: list[Notes] = []
    for split in ("test", "train"):
        shards = ShardedSplit.open(data / "shards", split, copies=False)
        cut = excerpts(shards, composer.tokenizer.vocabulary, count=count, seconds=6.0)
        found += [each.notes for each in cut if len(each.notes) >= 8]
    return found[:count]


def main() -> None:
    """Reads the command line and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=DATA, help="with model/ and shards/ (default: data)")
    parser.add_argument("--count", type=int, default=50, help="prompts (default: 50)")
    parser.add_argument("--seconds", type=float, default=10.0, help="of new music (default: 10)")
    parser.add_argument("--strength", type=float, default=1.0, help="of each wish (default: 1)")
    options = parser.parse_args()
    print(measure(options.data, count=options.count, seconds=options.seconds, strength=options.strength))


if __name__ == "__main__":
    main()
