"""Random numbers are functions of their arguments; the CPU is pinned before numpy and torch are imported."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coma_gen.core.seeding import generator, is_pinned, pin_cpu, torch_seed

counters = st.lists(st.integers(0, 2**40), max_size=3)


@given(st.integers(0, 2**63 - 1), st.sampled_from(["windows", "sample"]), counters)
def test_equal_arguments_give_equal_numbers(seed: int, purpose: str, numbers: list[int]) -> None:
    assert np.array_equal(
        generator(seed, purpose, *numbers).random(4), generator(seed, purpose, *numbers).random(4)
    )
    assert torch_seed(seed, purpose, *numbers) == torch_seed(seed, purpose, *numbers)
    assert 0 <= torch_seed(seed, purpose, *numbers) < 2**63


def test_any_other_argument_gives_other_numbers() -> None:
    arguments = [
        (0, "a"),
        (1, "a"),
        (0, "b"),
        (0, "a", 0),
        (0, "a", 1),
        (0, "a", 0, 1),
        (0, "a", 1, 0),
        (0, "a", 10),
        (0, "a", 1, 0),
    ]
    drawn = {tuple(generator(*each).random(2)) for each in arguments}  # type: ignore[arg-type]
    assert len(drawn) == len(set(arguments))
    assert len({torch_seed(*each) for each in arguments}) == len(set(arguments))  # type: ignore[arg-type]


def test_numbers_are_these_on_every_machine() -> None:
    assert generator(0, "windows", 3).integers(0, 1000, 4).tolist() == [147, 480, 758, 517]
    assert torch_seed(0, "dropout", 7) == 3713581418296616459


def test_pinning_sets_threads_and_instruction_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {})
    pin_cpu(pin=False, threads=3)
    assert os.environ["OMP_NUM_THREADS"] == "3"
    assert "MKL_CBWR" not in os.environ
    assert not is_pinned()
    pin_cpu(pin=True, threads=3)
    assert is_pinned() == (os.uname().machine == "x86_64")
    assert (os.environ.get("MKL_CBWR") == "AVX2") == (os.uname().machine == "x86_64")


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="pins x86-64 only")
def test_torch_obeys_the_pin() -> None:
    code = (
        "from coma_gen.core.seeding import pin_cpu; pin_cpu(pin=True, threads=1);"
        "import torch; print(torch.backends.cpu.get_cpu_capability(), torch.get_num_threads())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["AVX2", "1"]
