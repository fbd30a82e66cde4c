"""A model with conditions: it starts as one without, and all paths use conditions alike."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from coma_gen.config.schema import CONDITION_BINS, ModelParams
from coma_gen.generation.token_decoder import TokenDecoder
from coma_gen.model.conformer import Conformer
from coma_gen.model.serialization import load_model, save_model

NAMES = ("density", "polyphony")
Make = Callable[..., Conformer]


@pytest.fixture
def bins() -> Callable[..., Tensor]:
    """A function from a shape to bins, the same at every call, some of them not told."""
    return lambda *shape: torch.randint(
        CONDITION_BINS + 1, (*shape, 2), generator=torch.Generator().manual_seed(1)
    )


def test_it_begins_as_the_same_model_without(
    make_params: Callable[..., ModelParams], some_ids: Callable[..., Tensor], bins: Callable[..., Tensor]
) -> None:
    without, with_them = (
        Conformer(params=make_params(conditions=names), vocab_size=11, seed=3) for names in ((), NAMES)
    )
    shared = {key: value for key, value in with_them.state_dict().items() if "condition" not in key}
    assert shared.keys() == without.state_dict().keys()
    assert all(torch.equal(value, without.state_dict()[key]) for key, value in shared.items())
    ids = some_ids(2, 9)
    assert torch.equal(with_them(ids, conditions=bins(2, 9)), without(ids))


def test_nothing_told_is_none_and_what_is_told_counts(
    make_model: Make, some_ids: Callable[..., Tensor], bins: Callable[..., Tensor]
) -> None:
    model = make_model(conditions=NAMES)
    for table in model.condition_embeddings.values():
        table.weight.data[0] = 0
    ids, told = some_ids(2, 9), bins(2, 9)
    assert torch.equal(model(ids, conditions=torch.zeros_like(told)), model(ids))
    changed = told.clone()
    changed[1, 6, 0] = 1 + told[1, 6, 0] % CONDITION_BINS
    same = (model(ids, conditions=told) == model(ids, conditions=changed)).all(-1)
    assert same[0].all() and same[1, :6].all() and not same[1, 6]


def test_chunks_and_single_tokens_are_told_alike(
    make_model: Make, some_ids: Callable[..., Tensor], bins: Callable[..., Tensor]
) -> None:
    model, ids, told = make_model(conditions=NAMES), some_ids(2, 24), bins(2, 24)
    whole = model(ids, conditions=told).detach()
    state, step = model.init_cache(2), TokenDecoder(model)
    with torch.no_grad():
        first = model(ids[:, :9], state, told[:, :9])
    rest = [step(ids[:, at : at + 1], state, told[:, at : at + 1])[:, None] for at in range(9, 24)]
    torch.testing.assert_close(torch.cat([first, *rest], 1), whole, rtol=0, atol=1e-9)


def test_not_told_learns_nothing(
    make_params: Callable[..., ModelParams], some_ids: Callable[..., Tensor], bins: Callable[..., Tensor]
) -> None:
    model = Conformer(params=make_params(conditions=NAMES), vocab_size=11, seed=3)
    model(some_ids(2, 40), conditions=bins(2, 40)).logsumexp(-1).sum().backward()
    for table in model.condition_embeddings.values():
        moved = table.weight.grad.abs().sum(1) > 0
        assert not moved[0] and moved[1:].any()


def test_conditions_must_belong_to_the_ids(make_model: Make, some_ids: Callable[..., Tensor]) -> None:
    for names, shape in ((NAMES, (1, 4, 3)), (NAMES, (1, 3, 2)), ((), (1, 4, 2))):
        with pytest.raises(ValueError, match="conditions must be"):
            make_model(conditions=names)(some_ids(1, 4), conditions=torch.zeros(shape, dtype=torch.int64))


def test_a_model_keeps_its_conditions_on_disk_and_one_without_names_none(
    make_params: Callable[..., ModelParams], tmp_path: Path
) -> None:
    for names in ((), NAMES):
        model = Conformer(params=make_params(conditions=names), vocab_size=11, seed=3)
        save_model(tmp_path / "model", model, made_from={})
        config = json.loads((tmp_path / "model" / "config.json").read_text())["model"]
        assert config.get("conditions") == (list(NAMES) if names else None)
        assert load_model(tmp_path / "model").model.params == model.params
