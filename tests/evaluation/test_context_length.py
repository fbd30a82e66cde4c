"""Loss by context length, against hand-computed sums."""

from __future__ import annotations

import numpy as np
import pytest

from coma_gen.evaluation.context_length import ContextCurve


def test_a_piece_by_hand() -> None:
    nats = [np.array([0.0, 8.0, 4.0, 2.0, 1.0, 1.0]), np.array([0.0, 6.0])]
    assert list(ContextCurve.since_start(nats).rows()) == [
        {"context_from": 1, "context_to": 1, "tokens": 2, "nll_per_token": 7.0},
        {"context_from": 2, "context_to": 2, "tokens": 1, "nll_per_token": 4.0},
        {"context_from": 3, "context_to": 4, "tokens": 2, "nll_per_token": 1.5},
        {"context_from": 5, "context_to": 8, "tokens": 1, "nll_per_token": 1.0},
    ]


def test_bins_double_and_keep_every_token() -> None:
    curve = ContextCurve()
    curve.add(np.arange(1, 1001), np.ones(1000))
    curve.add(np.array([2**20, 2**20 + 1]), np.ones(2))
    rows = list(curve.rows())
    assert sum(row["tokens"] for row in rows) == 1002
    assert all(row["context_to"] == 2 * (row["context_from"] - 1) for row in rows[1:])
    assert [row["context_to"] for row in rows[-3:]] == [1024, 2**20, 2**21]
    assert all(row["nll_per_token"] == pytest.approx(1) for row in rows)


def test_nothing_has_no_rows() -> None:
    assert list(ContextCurve.since_start([np.zeros(1)]).rows()) == []
