"""Scores of a listening test: votes for each pair of sources, with exact binomial tests."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coma_gen.core.errors import Fault, UserError
from coma_gen.core.io import read_json
from coma_gen.listening.answer_key import ANSWERS, AnswerKey

CONFIDENCE = 0.95
MAX_NAME_LENGTH = 80
"""Maximum length of a listener's name, as on the page."""
Pair = tuple[str, str]


@dataclass
class Votes:
    """Answers about one pair of sources.

    Attributes:
        first: Number of votes for the first source.
        second: Number of votes for the second source.
        clearly: Number of votes marked as clear.
    """

    first: int = 0
    second: int = 0
    clearly: int = 0

    @property
    def total(self) -> int:
        """The number of votes."""
        return self.first + self.second

    @property
    def p_value(self) -> float:
        """p-value of the two-sided exact test of equal preference."""
        return binomial_p(self.first, self.total)

    @property
    def interval(self) -> tuple[float, float]:
        """Confidence interval of the preference for the first source (Clopper and Pearson 1934)."""
        return clopper_pearson(self.first, self.total)


@dataclass
class Listener:
    """One listener and their votes by pair."""

    name: str
    votes: dict[Pair, Votes] = field(default_factory=lambda: defaultdict(Votes))


def binomial_p(successes: int, trials: int) -> float:
    """Computes the two-sided p-value of a count under a fair binomial distribution."""
    fewer = min(successes, trials - successes)
    tail = sum(math.comb(trials, count) for count in range(fewer + 1))
    return min(1.0, 2 * tail / (1 << trials))


def clopper_pearson(successes: int, trials: int) -> tuple[float, float]:
    """Computes the exact interval of the success probability at level `CONFIDENCE`."""
    alpha = (1 - CONFIDENCE) / 2
    low = (
        _bisect(lambda share: 1 - _compute_binomial_cdf(successes - 1, trials, share) < alpha)
        if successes
        else 0.0
    )
    high = (
        _bisect(lambda share: _compute_binomial_cdf(successes, trials, share) >= alpha)
        if successes < trials
        else 1.0
    )
    return low, high


def _compute_binomial_cdf(count: int, trials: int, share: float) -> float:
    """Returns the probability of at most `count` successes; `share` is the success probability, in (0, 1)."""
    ways = (
        math.lgamma(trials + 1) - math.lgamma(number + 1) - math.lgamma(trials - number + 1)
        + number * math.log(share) + (trials - number) * math.log1p(-share)
        for number in range(count + 1)
    )  # fmt: skip
    return math.fsum(map(math.exp, ways))


def _bisect(is_below: Callable[[float], bool]) -> float:
    """Finds by bisection the value in [0, 1] from which a condition no longer holds."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if is_below(middle) else (low, middle)
    return (low + high) / 2


def read_answers(paths: Sequence[Path], key: AnswerKey) -> list[Listener]:
    """Reads files of answers.

    Args:
        paths: Files saved by the page.
        key: Answer key of the page.

    Raises:
        UserError: A file is not a file of answers, belongs to another page, is incomplete, or is of the same
            listener as another.
    """
    listeners: list[Listener] = []
    faults: list[Fault] = []
    for path in paths:
        content = read_json(path)
        found = _find_faults(str(path), content, key)
        faults += found
        if not found:
            name = _clean_name(content["listener"] or path.stem)
            if any(name == other.name for other in listeners):
                remedy = "leave one of them out, or change the name in one"
                faults.append(
                    Fault(str(path), "must be of another listener than the files before", name, remedy)
                )
            listeners.append(_count_votes(name, content["answers"], key))
    if faults:
        raise UserError(*faults)
    return listeners


def _clean_name(name: str) -> str:
    """Replaces unprintable characters of a listener's name and truncates it."""
    return "".join(each if each.isprintable() else "?" for each in name[:MAX_NAME_LENGTH])


def _find_faults(where: str, content: Any, key: AnswerKey) -> list[Fault]:
    """Lists the faults of a file of answers."""
    if not isinstance(content, dict) or content.get("kind") != ANSWERS:
        return [Fault(where, "must be answers that a page of `coma-gen listen` saved", str(content))]
    if content.get("page") != key.digest:
        remedy = "name the page that they were given on with --page"
        return [Fault(where, f"must belong to the page {key.digest}", str(content.get("page")), remedy)]
    answers = content.get("answers")
    is_good = isinstance(content.get("listener"), str) and isinstance(answers, list)
    if not is_good or not all(map(_is_answer, answers or ())):
        rule = (
            "must have a text `listener` and a list `answers`, each with trial, choice (A or B) and clearly"
        )
        return [Fault(where, rule, str(content))]
    numbers = [answer["trial"] for answer in answers or ()]
    expected = range(1, len(key.trials) + 1)
    if sorted(numbers) != list(expected):
        missing = sorted(set(expected) - set(numbers))
        got = f"none to {', '.join(map(str, missing))}" if missing else f"{len(numbers)} answers"
        return [Fault(where, f"must have one answer to each of the {len(key.trials)} trials", got)]
    return []


def _is_answer(answer: Any) -> bool:
    return (
        isinstance(answer, dict)
        and isinstance(answer.get("trial"), int)
        and answer.get("choice") in ("A", "B")
        and isinstance(answer.get("clearly"), bool)
    )


def _count_votes(name: str, answers: Sequence[Mapping[str, Any]], key: AnswerKey) -> Listener:
    listener = Listener(name)
    for answer in answers:
        sides = key.trials[answer["trial"] - 1]
        pair = key.pair(sides)
        votes = listener.votes[pair]
        is_first = sides["AB".index(answer["choice"])] == pair[0]
        votes.first += is_first
        votes.second += not is_first
        votes.clearly += answer["clearly"]
    return listener


def pool_votes(listeners: Sequence[Listener]) -> Listener:
    """Adds up the votes of all listeners."""
    everyone = Listener("all")
    for listener in listeners:
        for pair, votes in listener.votes.items():
            together = everyone.votes[pair]
            together.first += votes.first
            together.second += votes.second
            together.clearly += votes.clearly
    return everyone


def score_table(listeners: Sequence[Listener]) -> str:
    """Formats the votes as a table: of all listeners together, then of each."""
    parts = [pool_votes(listeners), *listeners] if len(listeners) > 1 else listeners
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
