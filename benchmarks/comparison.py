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
"""Two values are near each other if the larger is at most this many times the smaller."""
LEAST_IN_SCALE, LEAST_STAYING = 0.9, 0.85
"""Minimum share of a prompt's notes in one scale for the scale target; target share of new notes in it."""
STAY_SECONDS, MOST_STAYS = 4.0, 1.5
"""Duration of a stay on three keys; and the allowed ratio of stays in new music to stays in real music."""
NEAR_TOLERANCE = 0.1
"""How far the share of near continuations may lie below that of the other passages."""
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
"""Measures whose values should be near those of the real continuation."""
FORM: dict[str, Measure] = {
    "harmony returns after 3 to 8 s": return_3_to_8,
    "harmony returns after 8 to 15 s": return_8_to_15,
    "harmony returns after 15 s or more": return_from_15,
    "figures of five notes that return": self_repetition,
}


@dataclass(frozen=True)
class MeasureValues:
    """Values (N,) of one measure for the new music, the real continuations and the other passages."""

    new: Values
    real: Values
    other: Values

    @classmethod
    def compute(cls, passages: Sequence[Passage], new: Sequence[Notes], measure: Measure) -> MeasureValues:
        """Applies a measure to all three; the value of music without notes is 0."""
        sets = (new, [each.real for each in passages], [each.other for each in passages])
        return cls(*(np.array([measure(notes) if len(notes) else 0.0 for notes in of]) for of in sets))

    def find_near(self) -> tuple[Flags, Flags]:
        """Flags (N,): whether the new music, and the other passage, is near the real continuation."""
        return _is_near(self.new, self.real), _is_near(self.other, self.real)

    def select(self, chosen: Flags) -> MeasureValues:
        """Returns the values of the chosen passages."""
        return MeasureValues(self.new[chosen], self.real[chosen], self.other[chosen])


def _is_near(values: Values, real: Values) -> Flags:
    low, high = np.minimum(values, real), np.maximum(values, real)
    return np.asarray((high > 0) & (high <= WITHIN * low), np.bool_)


@dataclass(frozen=True)
class Comparison:
    """Continuations of the prompts of N passages, compared with the real continuations.

    Attributes:
        measures: Name -> values, one row of the table of means each.
        nearness: Measure of `NEAR`, or "all three" -> flags (N,): whether the new music and the other passage
            are near the real continuation.
    """

    measures: dict[str, MeasureValues]
    nearness: dict[str, tuple[Flags, Flags]]

    @classmethod
    def compute(cls, passages: Sequence[Passage], new: Sequence[Notes]) -> Comparison:
        """Computes all measures."""
        near = {name: MeasureValues.compute(passages, new, measure) for name, measure in NEAR.items()}
        in_scale = _measure_in_scale(passages, new)
        chosen = _measure_prompts_in_scale(passages) >= LEAST_IN_SCALE
        stays = MeasureValues.compute(passages, new, stay_on_three_keys)
        nearness = {name: values.find_near() for name, values in near.items()}
        new_near, other_near = (np.all([pair[part] for pair in nearness.values()], axis=0) for part in (0, 1))
        return cls(
            {
                **near,
                DURATION: MeasureValues.compute(passages, new, duration),
                "notes in the prompt's scale": in_scale,
                **({IN_SCALE: in_scale.select(chosen)} if chosen.any() else {}),
                STAYS: MeasureValues(
                    *((each >= STAY_SECONDS).astype(float) for each in (stays.new, stays.real, stays.other))
                ),
                **{name: MeasureValues.compute(passages, new, measure) for name, measure in FORM.items()},
            },
            {**nearness, "all three": (new_near, other_near)},
        )

    def means(self, best: BestOf | None = None) -> str:
        """Returns the means of all measures as a Markdown table, optionally with a best-of-N column."""
        head = ["", "samples", "model", "real", "another passage", "model - real, 95% interval"]
        rows = [_means(name, values) for name, values in self.measures.items()]
        if best is not None:
            cells = [f"{values.new.mean():.3g}" for values in best.comparison.measures.values()]
            head, rows = _insert_column(best, head, rows, cells)
        return table(head, rows)

    def shares(self, best: BestOf | None = None) -> str:
        """Returns the shares of music that is near the real continuation as a Markdown table."""
        head = ["within 25% of the real continuation", "samples", "model", "another passage"]
        rows = [
            [name, str(len(new)), _share(new), _share(other)] for name, (new, other) in self.nearness.items()
        ]
        if best is not None:
            cells = [_share(new) for new, _ in best.comparison.nearness.values()]
            head, rows = _insert_column(best, head, rows, cells)
        return table(head, rows)

    def check_targets(self) -> list[Target]:
        """Compares the measures with their targets."""
        targets = []
        for name, (new, other) in self.nearness.items():
            floor = max(0.0, float(other.mean()) - NEAR_TOLERANCE)
            rule = f"{name} within 25%: {floor:.1%} or more"
            targets.append(Target(rule, f"{new.mean():.1%}", bool(new.mean() >= floor)))
        if (scale := self.measures.get(IN_SCALE)) is not None:
            prompts = f"where the prompt has {LEAST_IN_SCALE:.0%}"
            rule = f"{LEAST_STAYING:.0%} of notes in the prompt's scale, {prompts}"
            share = float(scale.new.mean())
            targets.append(Target(rule, f"{share:.1%}", share >= LEAST_STAYING))
        for name in (DURATION, "notes at once"):
            ratio = self.measures[name].new.mean() / self.measures[name].real.mean()
            rule = f"{name} within 10% of real"
            targets.append(Target(rule, f"{ratio - 1:+.0%}", bool(0.9 <= ratio <= 1.1)))
        stays = self.measures[STAYS]
        most = MOST_STAYS * float(stays.real.mean())
        rule = f"{STAYS}: at most {most:.1%}"
        targets.append(Target(rule, f"{stays.new.mean():.1%}", bool(stays.new.mean() <= most)))
        return targets


@dataclass(frozen=True)
class BestOf:
    """Comparison of the best of several continuations of each prompt (best-of-N sampling).

    Attributes:
        draws: Number of continuations drawn per prompt (N).
        comparison: Comparison of the continuations most similar to their prompts.
    """

    draws: int
    comparison: Comparison


@dataclass(frozen=True)
class Target:
    """A target, the result, and whether the result meets the target."""

    rule: str
    result: str
    met: bool


def _measure_in_scale(passages: Sequence[Passage], new: Sequence[Notes]) -> MeasureValues:
    """Computes the shares of notes in the scale nearest to the prompt."""
    scales = [nearest_scale(passage.prompt) for passage in passages]
    sets = (new, [each.real for each in passages], [each.other for each in passages])
    return MeasureValues(*(np.array(list(map(share_in_scale, of, scales))) for of in sets))


def _measure_prompts_in_scale(passages: Sequence[Passage]) -> Values:
    """Computes the same shares (N,) for the prompts themselves."""
    return np.array([share_in_scale(each.prompt, nearest_scale(each.prompt)) for each in passages])


def _means(name: str, values: MeasureValues) -> list[str]:
    low, high = _interval(values.new - values.real)
    means = [f"{np.mean(each):.3g}" for each in (values.new, values.real, values.other)]
    return [name, str(len(values.new)), *means, f"{low:+.2g} to {high:+.2g}"]


def _insert_column(
    best: BestOf, head: list[str], rows: list[list[str]], cells: list[str]
) -> tuple[list[str], list[list[str]]]:
    """Inserts the best-of-N column to the right of the model's."""
    column = head.index("model") + 1
    wider = [[*row[:column], cell, *row[column:]] for row, cell in zip(rows, cells, strict=True)]
    return [*head[:column], f"best of {best.draws}", *head[column:]], wider


def table(head: list[str], rows: list[list[str]]) -> str:
    """Formats a Markdown table with the first column aligned to the left."""
    lines = [head, ["---", *(["--:"] * (len(head) - 1))], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _interval(differences: Values) -> tuple[float, float]:
    """95% interval of the mean of paired differences (N,), by the normal approximation."""
    if len(differences) < 2:
        return math.nan, math.nan
    half = 1.96 * float(differences.std(ddof=1)) / math.sqrt(len(differences))
    return float(differences.mean()) - half, float(differences.mean()) + half


def _share(flags: Flags) -> str:
    share = float(flags.mean())
    return f"{share:.0%} ± {1.96 * math.sqrt(share * (1 - share) / len(flags)):.0%}"
