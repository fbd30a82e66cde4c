"""The model computes the recorded digests; training speed beside other processes is measured."""

from __future__ import annotations

import json
import time

import pytest

from benchmarks import busy, portable
from coma_gen.workspace.verify import read_vendor


@pytest.mark.slow
@pytest.mark.skipif(
    read_vendor() != "AuthenticAMD",
    reason="measured on AMD and on an emulated Intel processor; `python -m benchmarks.portable` tells it",
)
def test_the_digests_are_those_of_the_page() -> None:
    got = portable.measure("numpy", 0)
    assert {name: got[name] for name in portable.DIGESTS} == portable.DIGESTS


def test_a_training_tells_how_fast_it_went(capsys: pytest.CaptureFixture[str]) -> None:
    busy.train(busy.Layout("one", 1, 1), time.time(), time.time() + 0.2)
    assert json.loads(capsys.readouterr().out) > 0
