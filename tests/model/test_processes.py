"""The number of processes: as requested, or chosen for the machine."""

from __future__ import annotations

import pytest
from small_models import small_params

from coma_gen.config.schema import RuntimeParams
from coma_gen.model import processes as module
from coma_gen.model.processes import choose_processes, choose_ranks, max_concurrent_experiments


def runtime(**changes: object) -> RuntimeParams:
    wanted = {"threads": 1, "pin_cpu": True, "device": "cpu", "processes": "auto"}
    return RuntimeParams.model_validate(wanted | changes)


@pytest.mark.parametrize(
    ("cores", "changes", "expected"),
    [
        (1, {}, 1),
        (2, {}, 2),
        (64, {}, 2),
        (8, {"device": "cuda"}, 1),
        (8, {"device": "mps"}, 1),
        (1, {"processes": 3}, 3),
        (8, {"processes": 3, "device": "cuda"}, 3),
    ],
)
def test_what_is_chosen(
    cores: int, changes: dict[str, object], expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "available_cores", lambda: cores)
    assert choose_processes(runtime(**changes)) == expected


@pytest.mark.parametrize(("found", "expected"), [("cpu", 2), ("cuda", 1)])
def test_auto_looks_for_a_device(found: str, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from coma_gen.model import device

    monkeypatch.setattr(module, "available_cores", lambda: 2)
    monkeypatch.setattr(device, "choose_device", lambda _name: torch.device(found))
    assert choose_processes(runtime(device="auto")) == expected


def test_an_odd_number_of_micro_batches_is_left_to_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "available_cores", lambda: 2)
    for micro_batches, ranks in ((1, 1), (2, 2), (3, 1), (4, 2)):
        train = small_params().train.model_copy(update={"grad_accum_steps": micro_batches})
        assert choose_ranks(runtime(), train) == ranks


def test_how_many_experiments_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, changes, expected in (
        (1, {}, 1),
        (2, {}, 1),
        (8, {}, 4),
        (8, {"threads": 2}, 2),
        (2, {"processes": 1}, 2),
    ):
        monkeypatch.setattr(module, "available_cores", lambda cores=cores: cores)
        assert max_concurrent_experiments(runtime(**changes)) == expected
