"""What listeners answered: counts for each pair of sources, with exact binomial tests."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coma_gen.core.errors import Fault, UserError
from coma_gen.core.io import read_json
from coma_gen.listening.sealed import ANSWERS, Sealed

CONFIDENCE = 0.95
LONGEST_NAME = 80
"""Characters of a listener's name: the page takes no more."""
Pair = tuple[str, str]


@dataclass
class Votes:
    """Answers about one pair of sources.

    Attributes:
        first: how many preferred its first source.
        second: how many the second.
        clearly: how many were sure.
    """

    first: int = 0
    second: int = 0
    clearly: int = 0

    @property
    def total(self) -> int:
        """How many answers."""
        return self.first + self.second

    @property
    def p_value(self) -> float:
        """Of the two-sided exact test that both are preferred equally often."""
        return binomial_p(self.first, self.total)

    @property
    def interval(self) -> tuple[float, float]:
        """Of the share that prefers the first (Clopper and Pearson 1934)."""
        return clopper_pearson(self.first, self.total)


@dataclass
class Listener:
    """One file of answers: whose, and their votes by pair."""

    name: str
    votes: dict[Pair, Votes] = field(default_factory=lambda: defaultdict(Votes))


def binomial_p(successes: int, trials: int) -> float:
    """How likely a count as far from half of the trials or further is, where both outcomes are as likely."""
    fewer = min(successes, trials - successes)
    tail = sum(math.comb(trials, count) for count in range(fewer + 1))
    return min(1.0, 2 * tail / (1 << trials))


def clopper_pearson(successes: int, trials: int) -> tuple[float, float]:
    """The exact interval, at `CONFIDENCE`, of the probability behind so many successes."""
    alpha = (1 - CONFIDENCE) / 2
    low = _where(lambda share: 1 - _at_most(successes - 1, trials, share) < alpha) if successes else 0.0
    high = _where(lambda share: _at_most(successes, trials, share) >= alpha) if successes < trials else 1.0
    return low, high


def _at_most(count: int, trials: int, share: float) -> float:
    """The probability of at most `count` successes in so many trials; `share` is above 0 and below 1."""
    ways = (
        math.lgamma(trials + 1) - math.lgamma(number + 1) - math.lgamma(trials - number + 1)
        + number * math.log(share) + (trials - number) * math.log1p(-share)
        for number in range(count + 1)
    )  # fmt: skip
    return math.fsum(map(math.exp, ways))


def _where(is_below: Callable[[float], bool]) -> float:
    """The share from which on a condition does not hold any more."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if is_below(middle) else (low, middle)
    return (low + high) / 2


def read_answers(paths: Sequence[Path], sealed: Sealed) -> list[Listener]:
    """Reads files of answers.

    Args:
        paths: as the page saved them.
        sealed: what the page hides.

    Raises:
        UserError: files that are no answers, belong to another page, are incomplete, or of one listener.
    """
    listeners: list[Listener] = []
    faults: list[Fault] = []
    for path in paths:
        content = read_json(path)
        found = _faults(str(path), content, sealed)
        faults += found
        if not found:
            name = _printable(content["listener"] or path.stem)
            if any(name == other.name for other in listeners):
                remedy = "leave one of them out, or change the name in one"
                faults.append(
                    Fault(str(path), "must be of another listener than the files before", name, remedy)
                )
            listeners.append(_decoded(name, content["answers"], sealed))
    if faults:
        raise UserError(*faults)
    return listeners


def _printable(name: str) -> str:
    """A listener's name as a table can show it, whatever a file holds."""
    return "".join(each if each.isprintable() else "?" for each in name[:LONGEST_NAME])


def _faults(where: str, content: Any, sealed: Sealed) -> list[Fault]:
    """What is wrong with the content of a file."""
    if not isinstance(content, dict) or content.get("kind") != ANSWERS:
        return [Fault(where, "must be answers that a page of `coma-gen listen` saved", str(content))]
    if content.get("page") != sealed.digest:
        remedy = "name the page that they were given on with --page"
        return [Fault(where, f"must belong to the page {sealed.digest}", str(content.get("page")), remedy)]
    answers = content.get("answers")
    is_good = isinstance(content.get("listener"), str) and isinstance(answers, list)
    if not is_good or not all(map(_is_answer, answers or ())):
        rule = (
            "must have a text `listener` and a list `answers`, each with trial, choice (A or B) and clearly"
        )
        return [Fault(where, rule, str(content))]
    numbers = [answer["trial"] for answer in answers or ()]
    wanted = range(1, len(sealed.trials) + 1)
    if sorted(numbers) != list(wanted):
        missing = sorted(set(wanted) - set(numbers))
        got = f"none to {', '.join(map(str, missing))}" if missing else f"{len(numbers)} answers"
        return [Fault(where, f"must have one answer to each of the {len(sealed.trials)} trials", got)]
    return []


def _is_answer(answer: Any) -> bool:
    return (
        isinstance(answer, dict)
        and isinstance(answer.get("trial"), int)
        and answer.get("choice") in ("A", "B")
        and isinstance(answer.get("clearly"), bool)
    )


def _decoded(name: str, answers: Sequence[Mapping[str, Any]], sealed: Sealed) -> Listener:
    listener = Listener(name)
    for answer in answers:
        sides = sealed.trials[answer["trial"] - 1]
        pair = sealed.pair(sides)
        votes = listener.votes[pair]
        is_first = sides["AB".index(answer["choice"])] == pair[0]
        votes.first += is_first
        votes.second += not is_first
        votes.clearly += answer["clearly"]
    return listener


def pooled(listeners: Sequence[Listener]) -> Listener:
    """The votes of all of them as those of one."""
    everyone = Listener("all")
    for listener in listeners:
        for pair, votes in listener.votes.items():
            together = everyone.votes[pair]
            together.first += votes.first
            together.second += votes.second
            together.clearly += votes.clearly
    return everyone


def score_table(listeners: Sequence[Listener]) -> str:
    """The votes as lines of text: those of all, then those of each."""
    parts = [pooled(listeners), *listeners] if len(listeners) > 1 else listeners
    name_width = max(8, *(len(part.name) for part in parts))
    pair_width = max(len(" : ".join(pair)) for part in parts for pair in part.votes)
    columns = "votes    first's share (95%)         p  clearly"
    lines = [f"{'listener':{name_width}}  {'pair':{pair_width}}  {columns}"]
    for part in parts:
        for pair in sorted(part.votes):
            votes, (low, high) = part.votes[pair], part.votes[pair].interval
            lines.append(
                f"{part.name:{name_width}}  {' : '.join(pair):{pair_width}}  "
                f"{f'{votes.first} : {votes.second}':7}  {votes.first / votes.total:4.0%} "
                f"[{low:4.0%}, {high:4.0%}]  {votes.p_value:8.2g}  {votes.clearly} of {votes.total}"
            )
    return "\n".join(lines)
