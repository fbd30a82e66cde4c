"""Tables that compare generated continuations with the real continuations, measure by measure.

The noise floor is another passage of the same piece, since real passages differ from each other, too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from coma_gen.evaluation.music_metrics import (
    return_3_to_8,
    return_8_to_15,
    return_from_15,
    self_repetition,
    stay_on_three_keys,
)
from coma_gen.listening.passages import Passage
from coma_gen.midi.measures import (
    duration,
    nearest_scale,
    notes_per_second,
    polyphony,
    share_in_scale,
    velocity,
)
from coma_gen.midi.notes import Notes

WITHIN = 1.25
"""A measure is near to another where neither is more than so many times the other."""
LEAST_IN_SCALE, LEAST_STAYING = 0.9, 0.85
"""Prompts are of one scale where so many of their notes are; and how many of the new ones are to be."""
STAY_SECONDS, MOST_STAYS = 4.0, 1.5
"""And how many times as often as in real music new music may stay."""
LESS_OFTEN = 0.1
"""New music may be near by so much less often than another passage is."""
DURATION, STAYS = "mean duration, s", f"{STAY_SECONDS:g} s on three keys or fewer"
IN_SCALE = f"... where the prompt has {LEAST_IN_SCALE:.0%} or more"
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

    def means(self, best: Best | None = None) -> str:
        """The means of everything, as markdown, with those of the best draws where they are given."""
        head = ["", "samples", "model", "real", "another passage", "model - real, 95% interval"]
        rows = [_means(name, held) for name, held in self.measures.items()]
        if best is not None:
            values = [f"{held.new.mean():.3g}" for held in best.compared.measures.values()]
            head, rows = _with_column(best, head, rows, values)
        return table(head, rows)

    def shares(self, best: Best | None = None) -> str:
        """How often music is near to the real continuation, as markdown."""
        head = ["within 25% of the real continuation", "samples", "model", "another passage"]
        rows = [
            [name, str(len(new)), _share(new), _share(other)] for name, (new, other) in self.nearness.items()
        ]
        if best is not None:
            values = [_share(new) for new, _ in best.compared.nearness.values()]
            head, rows = _with_column(best, head, rows, values)
        return table(head, rows)

    def wanted(self) -> list[Wanted]:
        """What is to be reached, and whether it is."""
        found = []
        for name, (new, other) in self.nearness.items():
            floor = max(0.0, float(other.mean()) - LESS_OFTEN)
            found.append(
                Wanted(
                    f"{name} within 25%: {floor:.1%} or more", f"{new.mean():.1%}", bool(new.mean() >= floor)
                )
            )
        if (scale := self.measures.get(IN_SCALE)) is not None:
            prompts = f"where the prompt has {LEAST_IN_SCALE:.0%}"
            wish = f"{LEAST_STAYING:.0%} of notes in the prompt's scale, {prompts}"
            share = float(scale.new.mean())
            found.append(Wanted(wish, f"{share:.1%}", share >= LEAST_STAYING))
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
class Best:
    """Of several continuations of each prompt, those nearest to it, held against the same passages.

    Attributes:
        draws: how many there were of each prompt.
        compared: the nearest ones.
    """

    draws: int
    compared: Comparison


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


def _means(name: str, held: Held) -> list[str]:
    low, high = _interval(held.new - held.real)
    means = [f"{np.mean(values):.3g}" for values in (held.new, held.real, held.other)]
    return [name, str(len(held.new)), *means, f"{low:+.2g} to {high:+.2g}"]


def _with_column(
    best: Best, head: list[str], rows: list[list[str]], values: list[str]
) -> tuple[list[str], list[list[str]]]:
    """A table with the values of the best draws right of the model's."""
    column = head.index("model") + 1
    wider = [[*row[:column], value, *row[column:]] for row, value in zip(rows, values, strict=True)]
    return [*head[:column], f"best of {best.draws}", *head[column:]], wider


def table(head: list[str], rows: list[list[str]]) -> str:
    """Rows under a head, as markdown, the first column to the left."""
    lines = [head, ["---", *(["--:"] * (len(head) - 1))], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _interval(differences: Values) -> tuple[float, float]:
    """Of the mean of paired differences (N,), by the normal approximation."""
    if len(differences) < 2:
        return math.nan, math.nan
    half = 1.96 * float(differences.std(ddof=1)) / math.sqrt(len(differences))
    return float(differences.mean()) - half, float(differences.mean()) + half


def _share(flags: Flags) -> str:
    share = float(flags.mean())
    return f"{share:.0%} ± {1.96 * math.sqrt(share * (1 - share) / len(flags)):.0%}"
