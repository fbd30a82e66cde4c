"""How near are a model's continuations to the real ones?

    python -m benchmarks.continuations --model pretrained --data data
    python -m benchmarks.continuations --into docs/samples.md       the tables into their place

Each prompt is the beginning of a passage of the test split, evenly over it. What the model goes on with is
held against what follows there, and so is another passage of the same piece, drawn at random: the noise
floor, for a real passage is not its neighbor either. The music measures and the longest passages shared with
the train split are those of the stage `sample`, of the same continuations.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

if "numpy" not in sys.modules:  # it chooses its kernels while it is imported
    from coma_gen.core.seeding import pin_cpu

    pin_cpu(pin=True, threads=1)

import numpy as np
import numpy.typing as npt

from benchmarks.all import placed
from coma_gen.config.load import load_params
from coma_gen.config.schema import SampleParams
from coma_gen.core.artifact import read_manifest
from coma_gen.core.io import write_atomic
from coma_gen.core.parallel import map_prepared
from coma_gen.evaluation.music_metrics import (
    return_3_to_8,
    return_8_to_15,
    return_from_15,
    self_repetition,
    stay_on_three_keys,
)
from coma_gen.evaluation.sample_metrics import sample_metrics
from coma_gen.evaluation.splits import check_tokens
from coma_gen.generation.generate import Continuation, generate_batch
from coma_gen.generation.music_generator import MusicGenerator
from coma_gen.generation.sampling import SamplingParams
from coma_gen.generation.stage import SIDE_BY_SIDE
from coma_gen.listening.passages import Found, Passage, find_passages
from coma_gen.midi.io import midi_bytes
from coma_gen.midi.measures import (
    duration,
    nearest_scale,
    notes_per_second,
    polyphony,
    share_in_scale,
    velocity,
)
from coma_gen.midi.notes import Notes
from coma_gen.model.device import deterministic
from coma_gen.shards.read import ShardedSplit
from coma_gen.tracking.model_store import named_model
from coma_gen.workspace.paths import Workspace

ROOT = Path(__file__).resolve().parents[1]
NAME = "continuations"
WITHIN = 1.25
"""A measure is near to another where neither is more than so many times the other."""
LEAST_IN_SCALE, LEAST_KEPT = 0.9, 0.85
"""Prompts are of one scale where so many of their notes are; and how many of the new ones are to be."""
STAY_SECONDS, MOST_STAYS = 4.0, 1.5
"""And how many times as often as in real music new music may stay."""
LESS_OFTEN = 0.1
"""New music may be near by so much less often than another passage is."""
MOST_TOLD_APART = 2
DURATION, STAYS = "mean duration, s", f"{STAY_SECONDS:g} s on three keys or fewer"
IN_SCALE = f"... where the prompt has {LEAST_IN_SCALE:.0%} or more"
EXCERPTS = 400
"""Of train and of test each, that the samples' music measures are held against."""
Values = npt.NDArray[np.float64]
Measure = Callable[[Notes], float]
Flags = npt.NDArray[np.bool_]
NEAR: dict[str, Measure] = {
    "notes a second": notes_per_second,
    "notes at once": polyphony,
    "velocity": velocity,
}
"""Measures that are to be near to the real continuation's."""
FORM: dict[str, Measure] = {
    "harmony returns after 3 to 8 s": return_3_to_8,
    "harmony returns after 8 to 15 s": return_8_to_15,
    "harmony returns after 15 s or more": return_from_15,
    "figures of five notes that return": self_repetition,
}


@dataclass(frozen=True)
class Held:
    """One measure of the new music, of the real continuations and of the other passages: (N,) each."""

    new: Values
    real: Values
    other: Values

    @classmethod
    def of(cls, passages: Sequence[Passage], new: Sequence[Notes], measure: Measure) -> Held:
        """A measure of all of them; of music without notes it is 0."""
        sets = (new, [each.real for each in passages], [each.other for each in passages])
        return cls(*(np.array([measure(notes) if len(notes) else 0.0 for notes in of]) for of in sets))

    def near(self) -> tuple[Flags, Flags]:
        """(N,) where the new music is near to the real continuation, and where the other passage is."""
        return _is_near(self.new, self.real), _is_near(self.other, self.real)

    def where(self, chosen: Flags) -> Held:
        """Those of some passages."""
        return Held(self.new[chosen], self.real[chosen], self.other[chosen])


def _is_near(values: Values, real: Values) -> Flags:
    low, high = np.minimum(values, real), np.maximum(values, real)
    return np.asarray((high > 0) & (high <= WITHIN * low), np.bool_)


@dataclass(frozen=True)
class Comparison:
    """New music that continues the prompts of N passages, held against what follows there.

    Attributes:
        measures: a row of the table of means each.
        nearness: measure of `NEAR`, or "all three" -> (N,) where new music and the other passage are near.
    """

    measures: dict[str, Held]
    nearness: dict[str, tuple[Flags, Flags]]

    @classmethod
    def of(cls, passages: Sequence[Passage], new: Sequence[Notes]) -> Comparison:
        """Measures everything."""
        near = {name: Held.of(passages, new, measure) for name, measure in NEAR.items()}
        in_scale, chosen = _in_scale(passages, new), _share_of_scale(passages) >= LEAST_IN_SCALE
        stays = Held.of(passages, new, stay_on_three_keys)
        nearness = {name: held.near() for name, held in near.items()}
        new_near, other_near = (np.all([pair[part] for pair in nearness.values()], axis=0) for part in (0, 1))
        return cls(
            {
                **near,
                DURATION: Held.of(passages, new, duration),
                "notes in the prompt's scale": in_scale,
                **({IN_SCALE: in_scale.where(chosen)} if chosen.any() else {}),
                STAYS: Held(
                    *((each >= STAY_SECONDS).astype(float) for each in (stays.new, stays.real, stays.other))
                ),
                **{name: Held.of(passages, new, measure) for name, measure in FORM.items()},
            },
            {**nearness, "all three": (new_near, other_near)},
        )

    def means(self) -> str:
        """The means of everything, as markdown."""
        return "\n".join(
            [
                "| | samples | model | real | another passage | model - real, 95% interval |",
                "|---|--:|--:|--:|--:|--:|",
                *(_means(name, held) for name, held in self.measures.items()),
            ]
        )

    def shares(self) -> str:
        """How often music is near to the real continuation, as markdown."""
        rows = [
            f"| {name} | {len(new)} | {_share(new)} | {_share(other)} |"
            for name, (new, other) in self.nearness.items()
        ]
        head = "| within 25% of the real continuation | samples | model | another passage |"
        return "\n".join([head, "|---|--:|--:|--:|", *rows])

    def wanted(self) -> list[Wanted]:
        """What is to be reached, and whether it is."""
        found = []
        for name, (new, other) in self.nearness.items():
            floor = float(other.mean()) - LESS_OFTEN
            found.append(
                Wanted(
                    f"{name} within 25%: {floor:.1%} or more", f"{new.mean():.1%}", bool(new.mean() >= floor)
                )
            )
        if (scale := self.measures.get(IN_SCALE)) is not None:
            wish = (
                f"{LEAST_KEPT:.0%} of notes in the prompt's scale, where the prompt has {LEAST_IN_SCALE:.0%}"
            )
            kept = float(scale.new.mean())
            found.append(Wanted(wish, f"{kept:.1%}", kept >= LEAST_KEPT))
        for name in (DURATION, "notes at once"):
            ratio = self.measures[name].new.mean() / self.measures[name].real.mean()
            found.append(Wanted(f"{name} within 10% of real", f"{ratio - 1:+.0%}", bool(0.9 <= ratio <= 1.1)))
        stays = self.measures[STAYS]
        most = MOST_STAYS * float(stays.real.mean())
        found.append(
            Wanted(f"{STAYS}: at most {most:.1%}", f"{stays.new.mean():.1%}", bool(stays.new.mean() <= most))
        )
        return found


@dataclass(frozen=True)
class Wanted:
    """Something to be reached."""

    rule: str
    found: str
    holds: bool


def _in_scale(passages: Sequence[Passage], new: Sequence[Notes]) -> Held:
    """The share of notes that are of the scale nearest to the prompt."""
    scales = [nearest_scale(passage.prompt) for passage in passages]
    sets = (new, [each.real for each in passages], [each.other for each in passages])
    return Held(*(np.array(list(map(share_in_scale, of, scales))) for of in sets))


def _share_of_scale(passages: Sequence[Passage]) -> Values:
    """(N,) the same share of the prompts themselves."""
    return np.array([share_in_scale(each.prompt, nearest_scale(each.prompt)) for each in passages])


def _means(name: str, held: Held) -> str:
    low, high = _interval(held.new - held.real)
    means = " | ".join(f"{np.mean(values):.3g}" for values in (held.new, held.real, held.other))
    return f"| {name} | {len(held.new)} | {means} | {low:+.2g} to {high:+.2g} |"


def _interval(differences: Values) -> tuple[float, float]:
    """Of the mean of paired differences (N,), by the normal approximation."""
    if len(differences) < 2:
        return math.nan, math.nan
    half = 1.96 * float(differences.std(ddof=1)) / math.sqrt(len(differences))
    return float(differences.mean()) - half, float(differences.mean()) + half


def _share(flags: Flags) -> str:
    share = float(flags.mean())
    return f"{share:.0%} ± {1.96 * math.sqrt(share * (1 - share) / len(flags)):.0%}"


def told_apart(music: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The music measures in which samples lie beyond what real music reaches, of `sample_metrics`."""
    return [
        name
        for name, figures in music.items()
        if figures["overlap"]["with_test"] < figures["overlap"]["of_real_low"]
        or figures["divergence"]["from_test"] > figures["divergence"]["of_real_high"]
    ]


def against_real(metrics: Mapping[str, Any]) -> tuple[list[Wanted], str]:
    """What `sample_metrics` says of the samples."""
    apart, memory = told_apart(metrics["music"]), metrics["memorisation"]
    names = f" ({', '.join(apart)})" if apart else ""
    longest, expected = (
        memory["samples"]["longest_notes"],
        memory["test"]["longest_notes_of_as_many"],
    )
    wanted = [
        Wanted(
            f"at most {MOST_TOLD_APART} of {len(metrics['music'])} music measures tell from test excerpts",
            f"{len(apart)}{names}",
            len(apart) <= MOST_TOLD_APART,
        ),
        Wanted(
            f"longest passage shared with train: {expected:.1f} notes, as of as many test excerpts",
            f"{longest:.0f}",
            longest <= memory["test"]["longest_notes"],
        ),
    ]
    of = metrics["excerpts"]
    return wanted, (
        f"The music measures compare {of['at_a_time']} pieces of each set at a time, of {of['train']} and "
        f"{of['test']} excerpts."
    )


def continued(
    model: Path, prompts: Sequence[Notes], params: SampleParams, *, processes: int
) -> list[Continuation]:
    """A continuation of each prompt; how many processes share the work changes nothing."""
    groups = [
        dict(list(enumerate(prompts))[first : first + SIDE_BY_SIDE])
        for first in range(0, len(prompts), SIDE_BY_SIDE)
    ]
    drawn = map_prepared(
        partial(_draw, params),
        groups,
        costs=[float(len(group)) for group in groups],
        prepare=partial(_prepared, model),
        processes=processes,
        desc="continuations",
        unit="piece",
    )
    return [piece for group in drawn for piece in group]


@contextmanager
def _prepared(model: Path) -> Iterator[MusicGenerator]:
    with deterministic(1):
        yield MusicGenerator.load(model)


def _draw(params: SampleParams, composer: MusicGenerator, prompts: dict[int, Notes]) -> list[Continuation]:
    return generate_batch(
        composer,
        list(prompts.values()),
        seconds=params.seconds,
        choice=SamplingParams.of(params),
        seed=params.seed,
        max_tokens=params.max_tokens,
        max_empty_bars=params.max_empty_bars,
        max_rewinds=params.max_rewinds,
        desc=None,
        numbers=list(prompts),
    )


def measure(
    model: Path, shards: Path, params: SampleParams, *, split: str, processes: int, against_train: bool
) -> str:
    """All tables of a model.

    Args:
        model: its folder.
        shards: with the splits, by the same tokenizer.
        params: `prompted` is how many prompts; the seconds, the seed and how tokens are chosen.
        split: whose passages are continued.
        processes: that share the sampling.
        against_train: also the music measures against excerpts and the passages shared with train.
    """
    check_tokens(shards, read_manifest(model, kind="model"), model)
    vocabulary = MusicGenerator.load(model).tokenizer.vocabulary
    found = find_passages(
        ShardedSplit.open(shards, split),
        vocabulary,
        count=params.prompted,
        prompt_seconds=params.prompt_seconds,
        seconds=params.seconds,
        seed=params.seed,
    )
    pieces = continued(model, [each.prompt for each in found.passages], params, processes=processes)
    compared = Comparison.of(found.passages, [piece.new for piece in pieces])
    wanted, told = compared.wanted(), [_told(found, pieces, params, split)]
    if against_train:
        with tempfile.TemporaryDirectory() as folder:
            for number, piece in enumerate(pieces):
                (Path(folder) / f"{number:04d}.mid").write_bytes(midi_bytes(piece.notes))
            more, sentence = against_real(sample_metrics(params, pieces, model, shards, Path(folder)))
        wanted += more
        told.append(sentence)
    rows = [f"| {each.rule} | {each.found} | {'yes' if each.holds else 'no'} |" for each in wanted]
    reached = "\n".join(["| wanted | found | holds |", "|---|---|---|", *rows])
    return "\n\n".join([compared.means(), compared.shares(), reached, " ".join(told)])


def _told(found: Found, pieces: Sequence[Continuation], params: SampleParams, split: str) -> str:
    drawn, dropped = (sum(getattr(piece, name) for piece in pieces) for name in ("tokens", "redrawn"))
    cut, broken = (sum(not getattr(piece, name) for piece in pieces) for name in ("reached", "valid"))
    return (
        f"{params.prompt_seconds:g} s of prompt, {params.seconds:g} s of new music, seed {params.seed}, "
        f"top-p {params.top_p} among {', '.join(params.truncate) or 'nothing'}; the {split} split, without "
        f"{found.too_short} performances that are too short and {found.without_notes} places without notes. "
        f"{cut} pieces ended early and {broken} break the grammar; sampling went back "
        f"{sum(piece.rewinds for piece in pieces)} times, which dropped {dropped / (drawn + dropped):.1%} of "
        "the tokens."
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads the command line and prints the tables."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.continuations",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--model", default="pretrained", help="a folder, or pretrained (the default)")
    add("--data", type=Path, default=ROOT / "data", help="with shards/ (default: data)")
    add("--prompts", type=int, default=200, help="how many (default: 200)")
    add("--split", default="test", choices=("test", "validation"), help="(default: test)")
    add("--prompt-seconds", type=float, default=8.0, help="of each prompt (default: 8)")
    add("--seconds", type=float, default=30.0, help="of new music (default: 30)")
    add("--seed", type=int, default=0, help="(default: 0)")
    add("--processes", type=int, default=2, choices=(1, 2), help="that sample (default: 2)")
    add("--no-train", action="store_true", help="leave out what needs the train split")
    add("--into", type=Path, help=f"a page with a place named {NAME}, which is written, too")
    options = parser.parse_args(arguments)
    params = load_params(ROOT / "params.yaml").sample.model_copy(
        update={
            "prompted": options.prompts,
            "prompt_seconds": options.prompt_seconds,
            "seconds": options.seconds,
            "seed": options.seed,
            "excerpts": EXCERPTS,
        }
    )
    with named_model(options.model, Workspace.around(ROOT)) as model:
        text = measure(
            model,
            options.data / "shards",
            params,
            split=options.split,
            processes=options.processes,
            against_train=not options.no_train,
        )
    print(text)
    if options.into is not None:
        write_atomic(options.into, placed(options.into.read_text(encoding="utf-8"), {NAME: text}))


if __name__ == "__main__":
    main()
