"""Run descriptions: what the run is, its results, its differences, and how to reproduce it."""

from __future__ import annotations

from dataclasses import replace

from coma_gen.tracking.words import Story, run_note, version_note

STORY = Story(
    name="slower",
    corpus="maestro-mini",
    model="conformer",
    performances=8,
    hours=2.36,
    changed={"train": {"learning_rate": 0.001, "clip_norm": None}},
    flags=("-S", "train.learning_rate=0.001", "-S", "train.clip_norm=null"),
    commit="0123456789abcdef",
    is_experiment=True,
)
FIGURES = {
    "bits": 21.27,
    "ngram": 26.74,
    "validation": 17.87,
    "parameters": 1e6,
    "tokens": 921_600.0,
}
PAGE = "#/experiments/1/runs/abc"


def test_a_run_says_all_of_it() -> None:
    note = run_note(STORY, FIGURES, PAGE)
    assert note.splitlines()[0] == (
        "**21.27 bits per note** on the test split of maestro-mini, "
        "5.47 fewer than the best n-gram model (26.74); 17.87 on validation."
    )
    for piece in (
        "Changed in params.yaml: `train.learning_rate=0.001 train.clip_norm=null`.",
        "`git checkout 01234567 && dvc exp run -S train.learning_rate=0.001 -S train.clip_norm=null`",
        "`dvc exp apply slower`",
        "(#/experiments/1/runs/abc/artifacts/report/index.html)",
        "A conformer of 1,000,000 parameters, trained on 921,600 tokens of maestro-mini (8 performances",
    ):
        assert piece in note


def test_the_committed_params_are_repeated_by_repro() -> None:
    note = run_note(replace(STORY, changed={}, flags=(), is_experiment=False), FIGURES, PAGE)
    assert "Changed in params.yaml: `nothing`." in note
    assert "`git checkout 01234567 && dvc repro`" in note
    assert "dvc exp" not in note


def test_without_git_nothing_is_said_of_changes() -> None:
    note = run_note(replace(STORY, changed=None, flags=(), commit=None, is_experiment=False), {}, PAGE)
    assert "Changed" not in note and "git checkout" not in note
    assert "not scored" in note


def test_an_interval_and_a_worse_model_are_told() -> None:
    figures = {**FIGURES, "bits": 30.0, "low": 29.5, "high": 30.25}
    note = run_note(STORY, figures, PAGE)
    assert note.startswith("**30.00 bits per note** (95% CI 29.50 to 30.25) on the test split")
    assert "3.26 more than the best n-gram model (26.74)" in note


def test_long_settings_are_cut() -> None:
    story = replace(STORY, changed={"split": {"composers_keep": ["Frédéric Chopin"] * 20}})
    assert len(story.changes()) < 100 and story.changes().endswith("...")


def test_a_version_says_how_to_use_it() -> None:
    note = version_note(STORY, FIGURES, PAGE, 3)
    assert "[slower](#/experiments/1/runs/abc)" in note
    assert "`coma-gen generate --model models:/coma-gen/3 my.mid`" in note
    assert '{"inputs": [{"seconds": 20, "seed": 1}]}' in note
