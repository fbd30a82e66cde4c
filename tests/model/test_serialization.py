"""A saved model loads unchanged, or is rejected."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from coma_gen.core.artifact import write_manifest
from coma_gen.core.errors import UserError
from coma_gen.core.io import read_json, write_json
from coma_gen.model.conformer import Conformer
from coma_gen.model.serialization import BEST, CONFIG, KIND, SUFFIX, load_model, save_model

WEIGHTS = f"{BEST}{SUFFIX}"
MADE_FROM = {"tokenizer": "a" * 64, "shards": "b" * 64}


@pytest.fixture
def model(make_model: Callable[..., Conformer]) -> Conformer:
    return make_model(attention_position="dynamic", global_attention_layers=(0,)).float()


@pytest.fixture
def folder(tmp_path: Path, model: Conformer) -> Path:
    save_model(tmp_path / "model", model, made_from=MADE_FROM)
    return tmp_path / "model"


def seal_again(folder: Path) -> None:
    write_manifest(folder, kind=KIND, made_from=MADE_FROM, settings={})


def test_round_trip(folder: Path, model: Conformer, some_ids: Callable[..., torch.Tensor]) -> None:
    loaded = load_model(folder, made_from={"tokenizer": "a" * 64})
    assert loaded.vocab_size == 11 and loaded.model.params == model.params
    assert loaded.manifest.made_from == MADE_FROM
    assert not loaded.model.training and all(p.requires_grad for p in loaded.model.parameters())
    assert torch.equal(loaded.model(some_ids(2, 20)), model(some_ids(2, 20)))


def test_rounded_weights_come_back_in_float32(folder: Path, model: Conformer) -> None:
    size = (folder / WEIGHTS).stat().st_size
    save_model(folder, model, made_from=MADE_FROM, dtype="float16")
    assert (folder / WEIGHTS).stat().st_size < 0.75 * size  # names and shapes are as long as before
    found = load_model(folder).model.state_dict()
    for name, tensor in model.state_dict().items():
        assert found[name].dtype == torch.float32
        assert torch.equal(found[name], tensor.half().float())


def test_the_bytes_are_a_function_of_the_weights(folder: Path, model: Conformer, tmp_path: Path) -> None:
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    save_model(folder, model, made_from=dict(reversed(MADE_FROM.items())))  # over what is there
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == first
    assert sorted(first) == [WEIGHTS, CONFIG, "manifest.json"]
    assert str(tmp_path).encode() not in b"".join(first.values())


@pytest.mark.parametrize("name", [WEIGHTS, CONFIG])
@pytest.mark.parametrize("share", [0.1, 0.5, -1])
def test_a_flipped_byte_is_refused(folder: Path, name: str, share: float) -> None:
    content = bytearray((folder / name).read_bytes())
    content[int(share * len(content)) if share > 0 else -1] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(UserError, match=name):
        load_model(folder)


@pytest.mark.parametrize(
    "key,value,complaint",
    [
        ("dim", 16, r"token_embedding.weight: must have the shape \(11, 16\)"),
        ("num_layers", 1, r"blocks.1.*a surplus tensor"),
        ("num_layers", 3, r"blocks.2.*no such tensor"),
        ("num_streams", 1, r"connections.*surplus"),
        ("attention_position", "absolute", r"config.json: model.attention_position"),
        ("num_heads", "2", r"config.json: model.num_heads"),
        ("surprise", 1, r"config.json: model.surprise"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(folder: Path, key: str, value: object, complaint: str) -> None:
    config = read_json(folder / CONFIG)
    config["model"][key] = value
    write_json(folder / CONFIG, config)
    seal_again(folder)
    with pytest.raises(UserError, match=complaint):
        load_model(folder)


@pytest.mark.parametrize(
    "change", [{"format": 1}, {"vocab_size": 0}, {"vocab_size": "11"}, {"vocab_size": 12}, {"x": 1}]
)
def test_other_configs_are_refused(folder: Path, change: dict[str, object]) -> None:
    write_json(folder / CONFIG, {**read_json(folder / CONFIG), **change})
    seal_again(folder)
    with pytest.raises(UserError, match=r"config.json|token_embedding"):
        load_model(folder)


def test_weights_that_are_not_finite_or_not_tensors_are_refused(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    tensors["norm.weight"][3] = torch.nan
    save_file(tensors, folder / WEIGHTS)
    seal_again(folder)
    with pytest.raises(UserError, match=r"norm.weight: must be finite"):
        load_model(folder)
    (folder / WEIGHTS).write_bytes(b"not tensors")
    seal_again(folder)
    with pytest.raises(UserError, match="must be a safetensors file"):
        load_model(folder)


def test_a_model_made_from_something_else_is_refused(folder: Path) -> None:
    with pytest.raises(UserError, match="must be made from the tokenizer cccccccccccc"):
        load_model(folder, made_from={"tokenizer": "c" * 64})
    with pytest.raises(UserError, match=r"corpus .* got none"):
        load_model(folder, made_from={"corpus": "c" * 64})


def test_a_folder_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="kind 'model'"):
        load_model(tmp_path)


def test_best_last_and_the_tokenizer_lie_side_by_side(
    tmp_path: Path, model: Conformer, make_model: Callable[..., Conformer]
) -> None:
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "vocabulary.json").write_text("{}")
    last = {name: value + 1 for name, value in model.state_dict().items()}
    weights = {"best": model.state_dict(), "last": last}
    save_model(tmp_path / "model", model, made_from=MADE_FROM, weights=weights, tokenizer=tmp_path / "words")
    assert (tmp_path / "model" / "tokenizer" / "vocabulary.json").read_text() == "{}"
    for name, state in weights.items():
        loaded = load_model(tmp_path / "model", weights=name).model.state_dict()
        assert all(torch.equal(loaded[key], state[key]) for key in state)
    with pytest.raises(UserError, match=r"middle.safetensors"):
        load_model(tmp_path / "model", weights="middle")
