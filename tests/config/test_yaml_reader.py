"""Our reader and DVC's agree on every scalar; DVC's own is the oracle."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import pytest
from dvc.utils.serialize import parse_yaml as parse_as_dvc
from hypothesis import example, given
from hypothesis import strategies as st

from coma_gen.config.yaml_reader import parse_yaml, read_yaml
from coma_gen.core.errors import UserError

SCALARS = [
    r"1e-5",
    r"1E5",
    r"010",
    r"0o17",
    r"0b101",
    r"0x1F",
    r"1_000",
    r"1_000.5",
    r"no",
    r"yes",
    r"on",
    r"off",
    r"y",
    r"n",
    r"True",
    r"TRUE",
    r"tRue",
    r"null",
    r"~",
    r".5",
    r"5.",
    r"-.5",
    r"+1",
    r"-1",
    r"+1.5e3",
    r"1:30",
    r"1:30:45",
    r".inf",
    r"-.inf",
    r".nan",
    r"08",
    r"0.1.2",
    r"1e",
    r"1e+5",
    r"-0",
    r"0_0",
    r"12e03",
    r"2020-01-01",
    r"1,000",
    r"'1'",
    r'"1e-5"',
    r'"no"',
    r"text",
    r"1__0",
    r"685_230.15",
    r"0.",
]


def same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return one == other or (math.isnan(one) and math.isnan(other))
    return type(one) is type(other) and one == other


@pytest.mark.parametrize("text", SCALARS)
def test_scalar_is_read_as_dvc_reads_it(text: str) -> None:
    document = f"a: {text}\n"
    assert same(parse_yaml(document, name="p")["a"], parse_as_dvc(document, "p")["a"])


@given(st.text(alphabet="0123456789_.+-eExob:infaNyst ~", min_size=1, max_size=8))
@example("1_")
@example("+.5e-1")
def test_any_scalar_is_read_as_dvc_reads_it(text: str) -> None:
    document = f"a: {text}\n"
    try:
        theirs = parse_as_dvc(document, "p")
    except Exception:
        return
    try:
        ours = parse_yaml(document, name="p")
    except UserError:
        return  # refusing is safe: nothing runs on a value that the two read differently
    assert type(ours) is type(theirs)
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys()
        assert all(same(ours[key], theirs[key]) for key in ours)


def test_the_four_that_yaml_1_1_gets_wrong() -> None:
    read = parse_yaml("a: 1e-5\nb: 010\nc: no\nd: 1_000\n", name="p")
    assert read == {"a": 1e-5, "b": 10, "c": "no", "d": 1000}


def test_faults_name_file_and_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"p\.yaml, line 2: must be YAML, got the duplicate key 'a'"):
        parse_yaml("a: 1\na: 2\n", name="p.yaml")
    with pytest.raises(UserError, match=r"p\.yaml, line 2"):
        parse_yaml("a: [1\n", name="p.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="UTF-8"):
        read_yaml(tmp_path / "binary.yaml")
    with pytest.raises(UserError, match="must exist"):
        read_yaml(tmp_path / "none.yaml")


def test_no_tag_makes_an_object() -> None:
    with pytest.raises(UserError, match="YAML"):
        parse_yaml("a: !!python/object/apply:builtins.len ['']\n", name="p")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "params.yaml")
    with pytest.raises(UserError, match=r"params\.yaml: must be a file, got a pipe or a device"):
        read_yaml(tmp_path / "params.yaml")
