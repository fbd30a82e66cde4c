"""Loading params.yaml: valid values load, and all errors are reported at once."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from coma_gen.config.load import check_params, load_params
from coma_gen.config.schema import Params
from coma_gen.config.yaml_reader import read_yaml
from coma_gen.core.errors import UserError

COMMITTED = Path(__file__).resolve().parents[2] / "params.yaml"
LEAVES = [f"{section}.{key}" for section, keys in read_yaml(COMMITTED).items() for key in keys]


@pytest.fixture
def content() -> dict[str, Any]:
    return copy.deepcopy(read_yaml(COMMITTED))


def faults(content: Any) -> dict[str, str]:
    """where -> rule of every fault."""
    with pytest.raises(UserError) as caught:
        check_params(content)
    return {fault.where.removeprefix("params.yaml: "): fault.rule for fault in caught.value.faults}


def changed(content: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    for name, value in values.items():
        section, key = name.split(".")
        content[section][key] = value
    return content


def test_committed_params_are_valid_and_frozen() -> None:
    params = load_params(COMMITTED)
    assert set(Params.model_fields) == set(read_yaml(COMMITTED))
    with pytest.raises(ValueError, match="frozen"):
        params.train.steps = 3  # type: ignore[misc]


def test_no_key_has_a_default_in_the_code() -> None:
    for section in Params.model_fields.values():
        for key, field in section.annotation.model_fields.items():  # type: ignore[union-attr]
            assert field.is_required(), key


def test_every_line_of_params_says_its_unit_or_range() -> None:
    lines = [line for line in COMMITTED.read_text().splitlines() if line.startswith("  ")]
    bare = [line for line in lines if "#" not in line]
    obvious = (
        "seed",
        "maestro_url",
        "maestro_sha256",
        "weight_decay",
        "beta",
        "attention_dropout",
        "ff_dropout",
        "conv_dropout",
    )
    assert [line for line in bare if not line.strip().startswith(obvious)] == []


@pytest.mark.parametrize("leaf", LEAVES)
def test_each_missing_key_is_named(leaf: str, content: dict[str, Any]) -> None:
    section, key = leaf.split(".")
    del content[section][key]
    assert faults(content) == {leaf: "this key must be there"}


@pytest.mark.parametrize("leaf", LEAVES)
@pytest.mark.parametrize("value", [{"a": 1}, [[["deep"]]], float("nan")], ids=["mapping", "list", "nan"])
def test_each_key_refuses_what_it_can_never_be(leaf: str, value: Any, content: dict[str, Any]) -> None:
    found = faults(changed(content, {leaf: value}))
    assert all(where == leaf or where.startswith(f"{leaf}.") for where in found)


@pytest.mark.parametrize(
    ("leaf", "value", "rule"),
    [
        ("train.steps", True, "whole number"),
        ("train.steps", 1.5, "whole number"),
        ("train.steps", "400", "whole number"),
        ("train.steps", 0, "greater than or equal to 1"),
        ("train.learning_rate", "1e-3", "must be a number"),
        ("train.learning_rate", True, "must be a number"),
        ("train.learning_rate", float("inf"), "finite"),
        ("train.learning_rate", -1e-3, "greater than 0"),
        ("train.augment", "no", "boolean"),
        ("train.precision", "fp16", "'fp32' or 'bf16'"),
        ("train.streams", "fp16", "'fp32' or 'bf16'"),
        ("model.ff_dropout", 1.0, "less than 1"),
        ("model.window_sizes", [], "at least one item"),
        ("model.window_sizes", 32, "must be a list"),
        ("sample.top_p", 0, "greater than 0"),
        ("sample.top_k", 0, "greater than or equal to 1"),
        ("download.maestro_url", "http://example.org/x.zip", "https"),
        ("download.maestro_sha256", "abc", "SHA-256"),
        ("train.teacher_digest", "abc", "SHA-256"),
        ("train.teacher_weight", 1.1, "less than or equal to 1"),
        ("train.teacher_weight", -0.1, "greater than or equal to 0"),
        ("train.teacher_temperature", 0.0, "greater than 0"),
    ],
)
def test_wrong_value_is_refused_by_its_rule(
    leaf: str, value: Any, rule: str, content: dict[str, Any]
) -> None:
    found = faults(changed(content, {leaf: value}))
    assert list(found) == [leaf]
    assert rule in found[leaf]


@pytest.mark.parametrize(
    ("values", "where"),
    [
        ({"split.validation_fraction": 0.6, "split.test_fraction": 0.5}, "split.validation_fraction"),
        ({"split.composers_keep": ["A", "B"], "split.composers_drop": ["B"]}, "split.composers_drop"),
        ({"tokenizer.pitch_range": [80, 40]}, "tokenizer.pitch_range"),
        ({"tokenizer.duration_bins": [[0, 1, 24], [2, 4, 12]]}, "tokenizer.duration_bins"),
        ({"tokenizer.duration_bins": [[0, 2, 24], [2, 1, 4]]}, "tokenizer.duration_bins"),
        ({"shard.tempo_factors": [1.0]}, "shard.tempo_factors"),
        ({"shard.tempo_factors": [0.9, 0.9]}, "shard.tempo_factors"),
        ({"model.head_dim": 31}, "model.head_dim"),
        ({"model.global_attention_layers": [9]}, "model.global_attention_layers"),
        ({"model.global_attention_layers": [0, 0]}, "model.global_attention_layers"),
        ({"model.window_sizes": [4096]}, "model.window_sizes"),
        ({"train.warmup_steps": 10_000}, "train.warmup_steps"),
        ({"train.streams": "bf16"}, "train.streams"),
        ({"train.init_from": "data/model"}, "train.init_from"),
        ({"train.teacher": "models/large"}, "train.teacher"),
        ({"train.teacher": str(Path.cwd() / "data" / "model")}, "train.teacher"),
        ({"train.init_from": str(Path.cwd() / "data" / "model")}, "train.init_from"),
        ({"download.path": "~/midi"}, "download.path"),
        (
            {
                "model.position_embedding": "learned",
                "model.max_seq_len": 64,
                "evaluate.window": 64,
                "evaluate.stride": 32,
            },
            "train.seq_len",
        ),
        ({"evaluate.window": 64, "evaluate.stride": 65}, "evaluate.stride"),
        (
            {"model.position_embedding": "learned", "model.max_seq_len": 256, "evaluate.window": 512},
            "evaluate.window",
        ),
        ({"sample.unprompted": 0, "sample.prompted": 0}, "sample.unprompted"),
    ],
)
def test_keys_at_odds_are_refused(values: dict[str, Any], where: str, content: dict[str, Any]) -> None:
    assert list(faults(changed(content, values))) == [where]


def test_odd_heads_are_fine_without_rotation(content: dict[str, Any]) -> None:
    check_params(changed(content, {"model.head_dim": 31, "model.attention_position": "dynamic"}))


def test_all_faults_come_together_and_misspelt_keys_get_a_suggestion(content: dict[str, Any]) -> None:
    content["train"]["learning_rat"] = content["train"].pop("learning_rate")
    content["trian"] = content.pop("sample")
    content["model"]["head_dim"] = 31
    content["split"]["seed"] = -1
    with pytest.raises(UserError) as caught:
        check_params(content)
    text = str(caught.value)
    assert "train.learning_rat: there is no such key. Did you mean 'learning_rate'?" in text
    assert "trian: there is no such key. Did you mean 'train'?" in text
    assert "train.learning_rate: this key must be there" in text
    assert "sample: this section must be there" in text
    assert "model.head_dim: must be even" in text
    assert "split.seed: must be greater than or equal to 0, got -1" in text


@pytest.mark.parametrize("content_", [None, [], "text", {}, {"train": None}, {"train": [1]}])
def test_what_is_not_params_at_all_is_refused(content_: Any) -> None:
    with pytest.raises(UserError):
        check_params(content_)
