"""Answers are decoded, counted and tested exactly; those that do not belong to the page are rejected."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from coma_gen.core.errors import UserError
from coma_gen.listening.answer_key import ANSWERS, AnswerKey
from coma_gen.listening.scores import binomial_p, clopper_pearson, pool_votes, read_answers, score_table


@pytest.mark.parametrize(
    ("successes", "trials", "p"),
    [
        (0, 0, 1.0),
        (0, 5, 2 / 32),
        (1, 6, 2 * (1 + 6) / 64),
        (8, 10, 2 * (1 + 10 + 45) / 1024),
        (5, 10, 1.0),
        (4, 9, 1.0),
        (0, 2000, 0.0),
    ],
)
def test_exact_p_values(successes: int, trials: int, p: float) -> None:
    assert binomial_p(successes, trials) == pytest.approx(p, rel=1e-12, abs=1e-300)


def test_exact_intervals() -> None:
    """Where no or all trials succeed the bound has a closed form: (1 - share)^n = 2.5%."""
    bound = 1 - 0.025 ** (1 / 10)
    assert clopper_pearson(0, 10) == pytest.approx((0.0, bound), abs=1e-9)
    assert clopper_pearson(10, 10) == pytest.approx((1 - bound, 1.0), abs=1e-9)
    assert clopper_pearson(5, 10) == pytest.approx((0.187086, 0.812914), abs=1e-6)  # Clopper and Pearson 1934
    assert clopper_pearson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(("successes", "trials"), [(1, 3), (7, 9), (40, 200), (1500, 3000)])
def test_as_scipy_has_it(successes: int, trials: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    known = stats.binomtest(successes, trials)
    assert binomial_p(successes, trials) == pytest.approx(known.pvalue, rel=1e-9)
    assert clopper_pearson(successes, trials) == pytest.approx(tuple(known.proportion_ci()), abs=1e-8)


def answers(sealed: AnswerKey, choices: str, *, name: str = "Ada", **changes: Any) -> dict[str, Any]:
    """Capitals are sure: "aBa" is A, clearly B, A."""
    given = [
        {"trial": number, "choice": letter.upper(), "clearly": letter.isupper(), "heard": [9.0, 9.0]}
        for number, letter in enumerate(choices, start=1)
    ]
    return {"kind": ANSWERS, "page": sealed.digest, "listener": name, "answers": given} | changes


def saved(folder: Path, *contents: dict[str, Any]) -> list[Path]:
    paths = []
    for number, content in enumerate(contents):
        paths.append(folder / f"answers-{number}.json")
        paths[-1].write_text(json.dumps(content))
    return paths


def test_sides_are_decoded_into_pairs(sealed: AnswerKey, tmp_path: Path) -> None:
    """Trial 1 has real on side A and the model on B, trial 2 the other way around."""
    (ada, bo) = read_answers(
        saved(tmp_path, answers(sealed, "aBa"), answers(sealed, "BAb", name="Bo")), sealed
    )
    assert set(ada.votes) == {("model", "real"), ("real", "5-gram")}
    votes = ada.votes["model", "real"]
    assert (votes.first, votes.second, votes.clearly) == (0, 2, 1)
    votes = bo.votes["model", "real"]
    assert (votes.first, votes.second, votes.clearly) == (2, 0, 2)
    assert (ada.votes["real", "5-gram"].second, bo.votes["real", "5-gram"].first) == (1, 1)
    everyone = pool_votes([ada, bo]).votes["model", "real"]
    assert (everyone.first, everyone.second, everyone.clearly, everyone.p_value) == (2, 2, 3, 1.0)
    assert ada.votes["model", "real"].first == 0, "the listeners keep their own"
    table = score_table([ada, bo]).splitlines()
    assert [line.split()[0] for line in table] == ["listener", "all", "all", "Ada", "Ada", "Bo", "Bo"]
    assert "model : real" in table[1] and "2 : 2" in table[1] and "3 of 4" in table[1]
    assert len(score_table([ada]).splitlines()) == 3


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"page": "0123456789abcdef"}, "must belong to the page"),
        ({"kind": "a letter"}, "must be answers that a page of `coma-gen listen` saved"),
        ({"listener": 3}, "must have a text `listener`"),
        ({"answers": None}, "must have a text `listener`"),
        ({"answers": [{"trial": 1, "choice": "C", "clearly": True}]}, "must have a text `listener`"),
        ({"answers": [{"trial": True, "choice": "A"}]}, "must have a text `listener`"),
    ],
)
def test_what_is_no_answer_to_this_page_is_refused(
    changes: dict[str, Any], text: str, sealed: AnswerKey, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=text) as raised:
        read_answers(saved(tmp_path, answers(sealed, "aaa", **changes)), sealed)
    assert "answers-0.json" in str(raised.value)


def test_incomplete_answers_are_refused(sealed: AnswerKey, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"one answer to each of the 3 trials, got none to 2, 3"):
        read_answers(saved(tmp_path, answers(sealed, "a")), sealed)
    twice = answers(sealed, "aab")
    twice["answers"].append(twice["answers"][0])
    with pytest.raises(UserError, match="got 4 answers"):
        read_answers(saved(tmp_path, twice), sealed)


def test_all_faults_are_told_at_once(sealed: AnswerKey, tmp_path: Path) -> None:
    paths = saved(tmp_path, answers(sealed, "a"), {}, answers(sealed, "aba"))
    with pytest.raises(UserError) as raised:
        read_answers(paths, sealed)
    assert "answers-0" in str(raised.value) and "answers-1" in str(raised.value)


def test_a_listener_counts_once(sealed: AnswerKey, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="must be of another listener"):
        read_answers(saved(tmp_path, answers(sealed, "aaa"), answers(sealed, "bbb")), sealed)
    (strange,) = read_answers(saved(tmp_path, answers(sealed, "aaa", name="\x1b[2J" + "x" * 999)), sealed)
    assert strange.name == "?[2J" + "x" * 76
    nameless = [answers(sealed, "aaa", name=""), answers(sealed, "bbb", name="")]
    assert [listener.name for listener in read_answers(saved(tmp_path, *nameless), sealed)] == [
        "answers-0",
        "answers-1",
    ]


def test_a_look_does_not_tell_what_is_sealed(sealed: AnswerKey, tmp_path: Path) -> None:
    assert not any(word in sealed.text for word in ("real", "model", "gram"))
    page = tmp_path / "page.html"
    page.write_text(f'<main data-sealed="{sealed.text}">')
    assert AnswerKey.from_page(page) == sealed
    assert AnswerKey.from_page(page).digest == sealed.digest


@pytest.mark.parametrize("text", ["", "<html>", '<main data-sealed="AAAA">', "\0\xff"])
def test_another_page_is_refused(text: str, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match="must be a page that `coma-gen listen` made"):
        AnswerKey.from_page(page)
    with pytest.raises(UserError, match="no such file"):
        AnswerKey.from_page(tmp_path / "none.html")
