"""Flat names, exact numbers, bounded text."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from coma_gen.tracking.client import Metric, Param
from coma_gen.tracking.flatten import MAX_PARAM, MAX_TAG, flat_metrics, flat_params, shorten


def test_params_read_as_in_the_file() -> None:
    params = {
        "train": {"learning_rate": 1e-5, "clip_norm": None, "augment": True},
        "model": {"window_sizes": (32, 128)},
    }
    assert flat_params(params) == {
        "train.learning_rate": "1e-05",
        "train.clip_norm": "null",
        "train.augment": "true",
        "model.window_sizes": "[32, 128]",
    }


def test_metrics_are_prefixed_and_exact() -> None:
    content = {
        "test": {"nll": 0.1 + 0.2, "notes": 5659328},
        "per piece": [1, 2.5],
        "none": None,
        "is_synthetic": True,
    }
    measures = flat_metrics("evaluate", {**content, "corpus": "mini"})
    assert measures.numbers == {
        "evaluate/test/nll": 0.1 + 0.2,
        "evaluate/test/notes": 5659328.0,
        "evaluate/per piece/0": 1.0,
        "evaluate/per piece/1": 2.5,
    }
    assert measures.texts == {"evaluate/is_synthetic": "true", "evaluate/corpus": "mini"}


def test_names_that_mlflow_refuses_are_mended_and_stay_apart() -> None:
    content = {"a/b": 1, "a(b": 2, "..": 3, "": 4, "Frédéric Chopin": 5, "x" * 400: 6}
    numbers = flat_metrics("split", content).numbers
    assert sorted(numbers.values()) == [1, 2, 3, 4, 5, 6]
    assert numbers["split/Frédéric Chopin"] == 5
    assert all(len(name) <= 250 for name in numbers)


def test_long_text_is_cut_to_the_limit_and_stays_different() -> None:
    texts = ["x" * 9000 + end for end in "ab"]
    cut = [shorten(text, MAX_PARAM) for text in texts]
    assert [len(text) for text in cut] == [MAX_PARAM, MAX_PARAM]
    assert cut[0] != cut[1]
    assert shorten("x" * MAX_TAG, MAX_TAG) == "x" * MAX_TAG


TREES: Any = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=300), inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(st.text(max_size=300), TREES, max_size=4))
def test_mlflow_takes_whatever_comes_out(tree: dict[str, Any]) -> None:
    from mlflow.utils.validation import _validate_metric, _validate_param, _validate_tag

    measures = flat_metrics("evaluate", tree)
    for name, value in measures.numbers.items():
        metric = Metric(name, value, 0, 0)
        _validate_metric(metric.key, metric.value, metric.timestamp, metric.step)
    for name, text in measures.texts.items():
        assert _validate_tag(name, text).value == text
    for name, text in flat_params({"section": tree}).items():
        assert _validate_param(name, text) == Param(name, text)
    numbers = [value for _, value in _walk(tree)]
    assert sorted(measures.numbers.values()) == sorted(float(value) for value in numbers)


def _walk(tree: Any) -> list[tuple[None, float]]:
    if isinstance(tree, dict):
        return [item for value in tree.values() for item in _walk(value)]
    if isinstance(tree, list):
        return [item for value in tree for item in _walk(value)]
    return [(None, tree)] if isinstance(tree, int | float) and not isinstance(tree, bool) else []
