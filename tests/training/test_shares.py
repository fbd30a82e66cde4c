"""The assignment of windows to ranks, valid numbers of ranks, and rank-local work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coma_gen.config.load import check_params
from coma_gen.config.rules import check_world_size
from coma_gen.config.schema import ModelParams, TrainParams
from coma_gen.config.yaml_reader import read_yaml
from coma_gen.core.errors import UserError
from coma_gen.model.conformer import Conformer
from coma_gen.training import distributed as module
from coma_gen.training.distributed import SINGLE_PROCESS, Distributed, is_lost_peer

PARAMS = Path(__file__).resolve().parents[2] / "params.yaml"


def model_params(dropout: float) -> ModelParams:
    section = read_yaml(PARAMS)["model"]
    parsed: ModelParams = check_params(read_yaml(PARAMS)).model
    return parsed.model_copy(update={name: dropout for name in section if name.endswith("dropout")})


def train_params(micro_batch: int, grad_accum_steps: int) -> TrainParams:
    parsed: TrainParams = check_params(read_yaml(PARAMS)).train
    return parsed.model_copy(update={"micro_batch": micro_batch, "grad_accum_steps": grad_accum_steps})


WET, DRY = model_params(0.1), model_params(0.0)


@settings(deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 32), st.booleans())
def test_shares_are_a_partition_and_keep_to_micro_batches(
    micro_batch: int, grad_accum_steps: int, size: int, dry: bool
) -> None:
    params = train_params(micro_batch, grad_accum_steps)
    faults = list(check_world_size(size, DRY if dry else WET, params))
    assert bool(faults) == (
        bool(grad_accum_steps % size)
        and (not dry or bool(size % grad_accum_steps) or bool(micro_batch * grad_accum_steps % size))
    )
    if faults:
        return
    shares = [Distributed(rank, size, rank).shard_batch(params) for rank in range(size)]
    windows = [window for share in shares for window in range(share.first, share.first + share.windows)]
    assert windows == list(range(micro_batch * grad_accum_steps))
    for share in shares:
        length = share.windows // share.micro_batches
        for number in range(share.micro_batches):
            first = share.first + number * length
            numbers = {index // micro_batch for index in range(first, first + length)}
            assert numbers == {share.first_micro_batch + number}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"processes": 3},
            r"runtime\.processes: must divide train\.grad_accum_steps \(1\), or be a multiple",
        ),
        (
            {"processes": 2, "ff_dropout": 0.1},
            r"runtime\.processes: .* where there is dropout \(model\.ff_dropout\), got 2\. "
            r"Train\.micro_batch=2, train\.grad_accum_steps=2 takes the same windows",
        ),
        ({"processes": 0}, r"runtime\.processes: must be greater than or equal to 1"),
        ({"processes": 65}, r"runtime\.processes: must be less than or equal to 64"),
    ],
)
def test_a_number_that_does_not_fit_is_refused_by_key(changes: dict[str, Any], words: str) -> None:
    content = read_yaml(PARAMS)
    content["train"].update(micro_batch=4, grad_accum_steps=1)
    for name, value in changes.items():
        content["runtime" if name == "processes" else "model"][name] = value
    with pytest.raises(UserError, match=words):
        check_params(content)
    content["runtime"]["processes"] = 1
    check_params(content)


def test_one_process_asks_nobody() -> None:
    assert SINGLE_PROCESS.sum_over_ranks(1.5, 2) == [1.5, 2]
    error = ValueError()
    assert SINGLE_PROCESS.exit_error(error, 1) is error
    other = Distributed(1, 2, 1).exit_error(error, 7)
    assert isinstance(other, SystemExit) and other.code == 7


def test_each_rank_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[int] = []
    monkeypatch.setattr(module, "choose_device", torch.device)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    assert SINGLE_PROCESS.device("cuda") == torch.device("cuda") and chosen == []
    assert Distributed(5, 6, 1).device("cuda") == torch.device("cuda", 1) and chosen == [1]
    with pytest.raises(
        UserError, match=r"runtime\.processes: must not exceed the GPUs of a machine \(2 here\)"
    ):
        Distributed(2, 4, 2).device("cuda")
    with pytest.raises(SystemExit):  # one rank has said it
        Distributed(3, 4, 3).device("cuda")
    assert Distributed(3, 4, 3).device("cpu") == torch.device("cpu")
    with pytest.raises(UserError, match=r"runtime\.device: must be cpu or cuda .* got mps"):
        Distributed(0, 2, 0).device("mps")


def test_other_errors_are_no_lost_peer() -> None:
    assert not is_lost_peer(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_lost_peer(torch.OutOfMemoryError("CUDA out of memory"))
    assert is_lost_peer(torch.distributed.DistNetworkError("x"))


def test_gradients_are_shared_with_options_that_each_torch_from_2_11_knows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """DistributedDataParallel of 2.11 has broadcast_buffers, of 2.13 forward_sync_buffers for it."""

    def of_both(
        model: torch.nn.Module, *, device_ids: list[int], process_group: object, gradient_as_bucket_view: bool
    ) -> tuple[object, ...]:
        return model, device_ids, process_group, gradient_as_bucket_view

    monkeypatch.setattr(module, "DistributedDataParallel", of_both)
    monkeypatch.setattr(module.dist, "new_group", lambda backend: backend)
    model = Conformer(params=DRY, vocab_size=9, seed=0)
    shared = Distributed(1, 2, 1).wrap_model(model, torch.device("cuda", 1))
    assert shared == (model, [1], "nccl", True)


@pytest.mark.parametrize("positions", ["xpos", "rotary", "dynamic", "none"])
def test_a_model_has_no_buffers_that_ranks_would_exchange_each_step(positions: str) -> None:
    changes = {"attention_position": positions, "position_embedding": "learned"}
    assert not list(Conformer(params=DRY.model_copy(update=changes), vocab_size=9, seed=0).buffers())
