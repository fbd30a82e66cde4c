"""Every wrong params.yaml that the schema can detect is rejected by key, or is listed as accepted."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import strategies as st

from coma_gen.config import yaml_reader
from coma_gen.config.load import check_params, load_params
from coma_gen.config.schema import Params
from coma_gen.config.yaml_reader import parse_yaml, read_yaml
from coma_gen.core.errors import UserError
from faults.budgets import BOTH_FORMS, Form, search
from faults.mutations import mutated

Tally = Callable[[str, str, int], None]
COMMITTED = Path(__file__).resolve().parents[2] / "params.yaml"
CONTENT: dict[str, dict[str, Any]] = read_yaml(COMMITTED)
LEAVES = [(section, key) for section, keys in CONTENT.items() for key in keys]
WRONG: dict[str, Any] = {
    "missing": ...,
    "negative": -1,
    "zero": 0,
    "a fraction": 0.5,
    "huge": 10**30,
    "huge float": 1e300,
    "NaN": float("nan"),
    "infinity": float("inf"),
    "text": "text",
    "empty text": "",
    "null": None,
    "true": True,
    "empty list": [],
    "a list": [1],
    "a list in a list": [[["deep"]]],
    "a mapping": {"a": 1},
}
FINE = {
    "zero": "download.synthetic_seed split.seed split.max_unreadable shard.transpose shard.velocity_shift "
    "model.embedding_dropout model.attention_dropout model.ff_dropout model.conv_dropout train.seed "
    "train.warmup_steps train.min_learning_rate_ratio train.weight_decay train.beta1 train.beta2 "
    "train.muon_momentum train.muon_weight_decay train.teacher_weight sample.seed "
    "sample.unprompted sample.prompted sample.max_empty_bars sample.max_rewinds "
    "sample.temperature sample.min_p",
    "a fraction": "split.validation_fraction split.test_fraction tokenizer.max_onset_rms_ms "
    "model.ff_expansion tokenizer.max_end_ratio_error model.embedding_dropout model.attention_dropout "
    "model.ff_dropout model.conv_dropout train.learning_rate train.min_learning_rate_ratio "
    "train.weight_decay train.beta1 train.beta2 train.clip_norm train.muon_learning_rate "
    "train.muon_momentum train.muon_weight_decay train.embedding_rate_ratio train.decay_fraction "
    "train.max_minutes train.teacher_weight train.teacher_temperature "
    "baseline.add baseline.bigram_prior "
    "sample.prompt_seconds sample.seconds sample.temperature sample.top_p sample.min_p",
    "text": "download.path",
    "null": "split.composers_top train.max_minutes tokenizer.vocab_size train.clip_norm "
    "train.early_stopping train.init_from train.teacher train.teacher_digest "
    "sample.top_k sample.top_p sample.min_p",
    "true": "runtime.pin_cpu model.qk_rmsnorm train.compile train.cuda_graphs train.augment "
    "train.tensorboard report.audio",
    "empty list": "split.composers_keep split.composers_drop shard.tempo_factors "
    "model.global_attention_layers model.conditions sample.truncate",
    "a list": "model.window_sizes model.global_attention_layers",
}
"""What the keys may be that stand here, as their comments in params.yaml say."""

TOGETHER: list[tuple[dict[str, Any], str]] = [
    ({"model.window_sizes": [32, 4096]}, "model.window_sizes"),
    ({"model.head_dim": 31, "model.attention_position": "rotary"}, "model.head_dim"),
    ({"model.head_dim": 31, "model.attention_position": "xpos"}, "model.head_dim"),
    ({"model.conditions": ["density", "density"]}, "model.conditions"),
    ({"tokenizer.vocab_size": 20}, "tokenizer.vocab_size"),
    ({"tokenizer.pitch_range": [80, 40]}, "tokenizer.pitch_range"),
    ({"tokenizer.pitch_range": [60, 60]}, "tokenizer.pitch_range"),
    ({"tokenizer.duration_bins": [[0, 1, 24], [2, 4, 12]]}, "tokenizer.duration_bins"),
    ({"tokenizer.duration_bins": [[1, 2, 24]]}, "tokenizer.duration_bins"),
    ({"tokenizer.duration_bins": [[0, 1, 23]]}, "tokenizer.duration_bins"),
    ({"tokenizer.duration_bins": [[0, 375, 24]]}, "tokenizer.duration_bins"),
    ({"split.validation_fraction": 0.5, "split.test_fraction": 0.5}, "split.validation_fraction"),
    ({"split.composers_keep": ["A"], "split.composers_drop": ["A"]}, "split.composers_drop"),
    ({"shard.tempo_factors": [0.9, 0.9]}, "shard.tempo_factors"),
    ({"shard.tempo_factors": [1.0]}, "shard.tempo_factors"),
    ({"model.global_attention_layers": [99]}, "model.global_attention_layers"),
    ({"train.warmup_steps": 900, "train.steps": 900}, "train.warmup_steps"),
    ({"train.streams": "bf16"}, "train.streams"),
    ({"train.init_from": "data/model"}, "train.init_from"),
    ({"train.teacher": "data/model"}, "train.teacher"),
    ({"download.path": "~/midi"}, "download.path"),
    ({"sample.unprompted": 0, "sample.prompted": 0}, "sample.unprompted"),
    ({"sample.top_p": 0.0}, "sample.top_p"),
    ({"evaluate.stride": 512, "evaluate.window": 256}, "evaluate.stride"),
]
PIECES = [
    "a", "1", ": ", "- ", "\n", "  ", "[", "]", "{", "}", ",", "&a ", "*a", "!!int ", "!!set ", "!!bool ",
    "!!float ", "!!timestamp ", "!!omap ", "!!pairs ", "!!binary ", "!!null ", "? ", "'", '"', "|\n", ">",
    "#", "%", "@", "`", "<<: ", "---\n", "...", "\t", "é", "\0", "0x", "1e5", ".nan", "2020-01-01", "\\",
]  # fmt: skip
"""What YAML is made of."""

SUFFIXES = ("s", "_", "x", " ")


def with_leaf(section: str, key: str, value: Any) -> dict[str, Any]:
    content = copy.deepcopy(CONTENT)
    if value is ...:
        del content[section][key]
    else:
        content[section][key] = value
    return content


def fault_keys(content: Any) -> Iterator[str]:
    """The key of each fault; each fault is one line."""
    with pytest.raises(UserError) as caught:
        check_params(content)
    for fault in caught.value.faults:
        assert len(str(fault).splitlines()) == 1 and len(str(fault)) < 1200
        yield fault.where.removeprefix("params.yaml: ")


@pytest.mark.parametrize("name", WRONG)
def test_each_leaf_refuses_what_it_cannot_be(name: str, tally: Tally) -> None:
    fine = set(FINE.get(name, "").split())
    refused = 0
    for section, key in LEAVES:
        content, leaf = with_leaf(section, key, WRONG[name]), f"{section}.{key}"
        if leaf in fine:
            assert isinstance(check_params(content), Params)
            continue
        found = list(fault_keys(content))
        assert any(where == leaf or where.startswith(f"{leaf}.") for where in found), (leaf, found)
        refused += 1
    tally(f"a leaf of params.yaml that is {name}", "refused by key", refused)
    if fine:
        tally(f"a leaf of params.yaml that is {name}", "accepted where its comment says so", len(fine))


def test_each_unknown_key_is_refused_and_each_misspelt_one_corrected(tally: Tally) -> None:
    times = 0
    for section, key in LEAVES:
        for suffix in SUFFIXES:
            content = copy.deepcopy(CONTENT)
            content[section][key + suffix] = content[section].pop(key)
            with pytest.raises(UserError) as caught:
                check_params(content)
            text = str(caught.value)
            assert f"{section}.{key}{suffix}: there is no such key" in text
            assert f"Did you mean '{key}'?" in text and f"{section}.{key}: this key must be there" in text
            times += 1
    for section in CONTENT:
        content = copy.deepcopy(CONTENT)
        content[section[:-1]] = content.pop(section)
        with pytest.raises(UserError, match=f"Did you mean '{section}'"):
            check_params(content)
        times += 1
    tally("a misspelt or unknown key", "refused with a suggestion", times)


@pytest.mark.parametrize(("values", "where"), TOGETHER, ids=[where for _, where in TOGETHER])
def test_keys_at_odds_with_each_other_are_refused(values: dict[str, Any], where: str, tally: Tally) -> None:
    content = copy.deepcopy(CONTENT)
    for name, value in values.items():
        section, key = name.split(".")
        content[section][key] = value
    assert where in [found.rpartition(".0")[0] or found for found in fault_keys(content)]
    tally("keys at odds with each other", "refused by key", 1)


@pytest.mark.parametrize(
    "content", [None, [], "text", 3, {}, {"train": None}, {"train": [1]}, {1: 2}, {None: {}}]
)
def test_what_is_not_params_at_all_is_refused(content: Any, tally: Tally) -> None:
    assert list(fault_keys(content))
    tally("a params.yaml that is no such thing", "one line a section", 1)


DOCUMENTS: dict[str, str] = {
    "a python object": "a: !!python/object/apply:builtins.len ['']",
    "a python name": "a: !!python/name:builtins.len",
    "a python module": "a: !!python/module:string",
    "a wrong truth": "a: !!bool maybe",
    "a wrong time": "a: !!timestamp x",
    "a time that never was": "a: 2020-13-45",
    "an empty number": "a: !!int ''",
    "wrong bytes": "a: !!binary x",
    "an unknown tag": "a: !thing 3",
    "a key that is a list": "? [a]\n: 1",
    "a key twice": "a: 1\na: 2",
    "a key twice in a section": "train: {steps: 1, steps: 2}",
    "two documents": "a: 1\n---\nb: 2",
    "a tab": "a:\t- b",
    "a null byte": "a: \0",
    "an alias to nothing": "a: *b",
    "merging a number": "<<: 1",
    "no end": "a: [1, 2",
    "keys of all kinds": "1: 2\n2.5: 3\ntrue: 4\nnull: 5\n2020-01-01: 6",
    "a set": "train: !!set {a, b}",
    "terminal codes": 'train: {"\\e[2J": "\\e]0;x\\a"}',
    "a lone surrogate": 'train: {steps: "\\ud800"}',
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_no_document_harms(name: str, tmp_path: Path, tally: Tally) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(DOCUMENTS[name], encoding="utf-8")
    with pytest.raises(UserError) as caught:
        load_params(path)
    text = str(caught.value)
    assert len(text.splitlines()) == len(caught.value.faults) and len(text) < 20_000
    assert all(each.isprintable() for each in text.splitlines())
    tally("a document made to run code, blow up or mislead", "refused in plain lines", 1)


def refusal(text: str) -> str:
    with pytest.raises(UserError) as caught:
        parse_yaml(text, name="p.yaml")
    assert len(caught.value.faults) == 1
    return str(caught.value)


class TestBounds:
    """Each bound, lowered, by a document that is just beyond it and harms nobody."""

    @pytest.mark.parametrize("pair", ["[]", "{}"])
    def test_what_is_nested_too_deep(self, pair: str, monkeypatch: pytest.MonkeyPatch, tally: Tally) -> None:
        monkeypatch.setattr(yaml_reader, "MAX_DEPTH", 4)
        opened, closed = pair[0] + "a: " * (pair == "{}"), pair[1]
        parse_yaml(opened * 4 + "1" + closed * 4, name="p.yaml")
        text = refusal(opened * 5 + "1" + closed * 5)
        assert "line 1: must be YAML, got it is nested more than 4 deep" in text
        tally("a document nested deeper than the bound", "one clear line", 1)

    def test_what_is_nested_deeper_than_the_stack(self, tally: Tally) -> None:
        limit, frame, used = sys.getrecursionlimit(), sys._getframe(), 0
        while frame := frame.f_back:  # type: ignore[assignment]
            used += 1
        try:
            sys.setrecursionlimit(used + 120)
            text = refusal("[" * 80 + "]" * 80)
        finally:
            sys.setrecursionlimit(limit)
        assert "recursion" in text
        tally("a document nested deeper than the bound", "one clear line", 1)

    def test_aliases_that_stand_for_too_much(self, monkeypatch: pytest.MonkeyPatch, tally: Tally) -> None:
        text = "a: &a [1, 1]\nb: &b [*a, *a]\nc: [*b, *b]"
        monkeypatch.setattr(yaml_reader, "MAX_VALUES", 29)
        assert parse_yaml(text, name="p.yaml")["c"] == [[[1, 1]] * 2] * 2
        monkeypatch.setattr(yaml_reader, "MAX_VALUES", 28)
        assert "it expands to more than 28 values" in refusal(text)
        tally("aliases that stand for more values than the bound", "one clear line", 1)

    @pytest.mark.parametrize("of_mappings", [False, True])
    def test_what_holds_itself_stands_for_too_much(self, of_mappings: bool, tally: Tally) -> None:
        """Put together in memory: a file of that kind is no thing to keep."""
        node: yaml.Node
        if of_mappings:
            node = yaml.MappingNode("tag:yaml.org,2002:map", [])
            node.value.append((yaml.ScalarNode("tag:yaml.org,2002:str", "b"), node))
        else:
            node = yaml.SequenceNode("tag:yaml.org,2002:seq", [])
            node.value.append(node)
        assert yaml_reader._count_values(node, {}) > yaml_reader.MAX_VALUES
        tally("a list or mapping that holds itself", "counted as more values than the bound", 1)

    @pytest.mark.parametrize("digits", ["9" * 641, "0x" + "f" * 600])
    def test_a_number_of_too_many_digits(self, digits: str, tally: Tally) -> None:
        """Python turns no more digits into a number, or the other way, than it is told: 640 at the least."""
        limit = sys.get_int_max_str_digits()
        try:
            sys.set_int_max_str_digits(640)
            for content in (f"train: {{steps: {digits}}}", f"{digits}: 1"):
                with pytest.raises(UserError) as caught:
                    check_params(parse_yaml(content, name="params.yaml"))
                text = str(caught.value)
                assert len(text.splitlines()) == len(caught.value.faults) and len(text) < 20_000
        finally:
            sys.set_int_max_str_digits(limit)
        tally("a number of more digits than Python reads or writes", "refused in plain lines", 1)

    def test_a_file_of_too_many_bytes(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tally: Tally
    ) -> None:
        monkeypatch.setattr(yaml_reader, "MAX_BYTES", 100)
        (tmp_path / "p.yaml").write_text("#" * 100)
        assert read_yaml(tmp_path / "p.yaml") is None
        (tmp_path / "p.yaml").write_text("#" * 101)
        with pytest.raises(UserError, match=r"p\.yaml: must have at most 100 bytes, got more"):
            read_yaml(tmp_path / "p.yaml")
        tally("a params.yaml that is missing, too large, a folder or not text", "one clear line", 1)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"a: \xe9", None, ...])
def test_files_that_are_no_text(content: Any, tmp_path: Path, tally: Tally) -> None:
    path = tmp_path / "params.yaml"
    if content is None:
        path.mkdir()
    elif content is not ...:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"params\.yaml"):
        load_params(path)
    tally("a params.yaml that is missing, too large, a folder or not text", "one clear line", 1)


@pytest.mark.parametrize("form", BOTH_FORMS)
class TestSearch:
    def test_no_change_of_bytes_breaks_the_reader(self, form: Form, tmp_path: Path, tally: Tally) -> None:
        text = COMMITTED.read_bytes()
        plain = yaml.safe_dump(CONTENT).encode()

        def check(content: bytes) -> None:
            (tmp_path / "p.yaml").write_bytes(content)
            try:
                assert isinstance(load_params(tmp_path / "p.yaml"), Params)
            except UserError as error:
                assert len(str(error).splitlines()) == len(error.faults)

        inputs = mutated(text[:1500], plain, b"train: {steps: &a 3, b: *a}")
        times = search(check, inputs, form, batch=40, of=3)
        tally(
            "a params.yaml with bytes changed, cut, doubled or moved",
            "read, or refused in plain lines",
            times,
        )

    def test_no_value_of_any_kind_breaks_the_checks(self, form: Form, tally: Tally) -> None:
        scalar = st.one_of(
            st.none(),
            st.booleans(),
            st.integers(),
            st.floats(),
            st.text(max_size=9),
            st.dates(),
            st.binary(max_size=3),
        )
        value = st.recursive(
            scalar,
            lambda inner: st.one_of(
                st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=4), inner, max_size=3)
            ),
            max_leaves=8,
        )

        def check(change: tuple[tuple[str, str], Any]) -> None:
            (section, key), changed = change
            try:
                params = check_params(with_leaf(section, key, changed))
            except UserError as error:
                assert len(str(error).splitlines()) == len(error.faults)
            else:
                assert isinstance(params, Params)

        times = search(check, st.tuples(st.sampled_from(LEAVES), value), form, batch=150, of=3)
        tally("a leaf of params.yaml with any value", "accepted, or refused in plain lines", times)

    def test_yaml_of_any_shape_is_read_or_refused(self, form: Form, tally: Tally) -> None:
        def check(text: str) -> None:
            try:
                parse_yaml(text, name="p.yaml")
            except UserError as error:
                assert len(error.faults) == 1 and "p.yaml" in str(error)

        pieces = st.sampled_from(PIECES)
        times = search(check, st.lists(pieces, max_size=40).map("".join), form, batch=150, of=3)
        tally("YAML of any shape", "read, or one clear line", times)
