"""Smoke tests: every script runs on a tiny shape; its figures are meaningless."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from benchmarks import all as every
from benchmarks import data, decode, learners, memory, parts, train_step
from benchmarks.decoders import cache_bytes, tensor_bytes
from coma_gen.model.conformer import Conformer

if TYPE_CHECKING:
    from benchmarks.sizes import Size

CPU = torch.device("cpu")
README = Path(__file__).resolve().parents[2] / "benchmarks" / "README.md"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.machine.PRODUCTS_FLOPS", 1e5)
    monkeypatch.setattr("benchmarks.machine.MATRIX_SIDES", (16,))


def rows(text: str) -> dict[str, list[str]]:
    """First cells -> the others, of every table in a text."""
    lines = [line[1:-1].split("|") for line in text.splitlines() if line.startswith("| ")]
    return {cells[0].strip(): [cell.strip() for cell in cells[1:]] for cells in lines}


@pytest.mark.slow
def test_train_step(tiny: Size) -> None:
    found = rows(train_step.measure(tiny, device=CPU, rounds=1, compiling=False))
    assert found["reference, fp32"][0] == found["ours, fp32"][0]
    assert found["reference, fp32"][4] == "1.00x"
    assert {"ours, bf16", *learners.PEERS} <= found.keys()
    assert sum(name.startswith("floor, ") for name in found) >= 1


def test_what_cannot_be_measured_says_why(tiny: Size, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(_name: str) -> None:
        raise ImportError

    monkeypatch.setattr("benchmarks.peers.import_module", absent)
    found = rows(train_step.measure(tiny, device=CPU, rounds=1, compiling=False))
    assert found["transformers GPT-2, fp32"][0] == "transformers is not installed"
    assert found["ours, fp32"][0] != "-"


@pytest.mark.parametrize("works", [True, False])
def test_a_compiled_mode_is_measured_where_the_compiler_works(
    works: bool, tiny: Size, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learners, "compile_model", lambda *_, **__: works)
    found, absent = learners.build_learners(tiny, CPU, compiling=True)
    name = "ours, compiled, fp32"
    assert (name in found, name in absent) == (works, not works)
    if works:
        assert found[name].first_step_seconds is not None


@pytest.mark.slow
def test_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("ours, fp32", learners.X_TRANSFORMERS)
    monkeypatch.setattr(memory, "BUILDERS", {name: memory.BUILDERS[name] for name in names})
    monkeypatch.setenv("PYTHONPATH", str(README.parents[1]))
    lines = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in memory.measure(("1M",)).splitlines()
    ]
    found = {line[1]: line[2:] for line in lines[2:]}
    assert tuple(found) == names
    assert float(found["ours, fp32"][0]) > 4 * 4 * 1.03, "weights, gradients and two moments of 1.03M numbers"
    assert found[learners.X_TRANSFORMERS][1] == "1.00x"


def test_parts(tiny: Size) -> None:
    text = parts.measure(tiny, device=CPU, rounds=1)
    found = {tuple(cell.strip() for cell in line.split("|")[1:4]) for line in text.splitlines()}
    assert ("hyper-connection", "ours", "8") in found
    assert {("attention alone", way, "2") for way in ("ours", "plain", "full causal")} <= found


def test_decode(tiny: Size) -> None:
    text = decode.measure(tiny, device=CPU, rounds=1, tokens=2, histories=(3, 9, 30), longest_recomputed=9)
    found = rows(text)
    assert found["ours: a token after 30 / after 9"]
    assert found["9 new tokens from nothing: faster than reference, no cache"]
    after_thirty = [line for line in text.splitlines() if line.startswith("| 30 ")]
    assert not any("no cache" in line for line in after_thirty)
    assert sum("floor at" in line for line in after_thirty) == len(decode.BATCHES)


def test_storages_with_several_views_are_counted_once() -> None:
    memory = torch.zeros(10)
    assert sum(tensor_bytes({"a": [memory, memory[:3]], "b": (memory[4:], None, 1)}).values()) == 40


def test_the_bytes_that_must_be_read_are_at_most_those_of_the_state(tiny: Size) -> None:
    model = Conformer(params=tiny.model, vocab_size=tiny.vocab_size, seed=0).eval()
    state = model.init_cache(1)
    with torch.inference_mode():
        model(torch.zeros(1, 30, dtype=torch.int64), state)
    assert cache_bytes(tiny, 30) <= sum(tensor_bytes(state).values())


@pytest.mark.slow
def test_data(tmp_path: Path) -> None:
    corpus = data.build(tmp_path, performances=3, seconds=8.0)
    size = data.training_size(corpus.train.settings["vocab_size"])
    found = rows(data.measure_windows(corpus, size, rounds=1, draws=1))
    assert {
        "windows, no augmentation",
        "windows, augmented",
        "the same, after a training step",
    } <= found.keys()
    found = rows(data.measure_tokenization(corpus, rounds=1))
    assert found["miditok, file to ids"][5] == "1.00x"
    counts = [int(cells[3].replace(",", "")) for name, cells in found.items() if name.endswith("to ids")]
    assert len(counts) == 4 and max(counts) < 1.05 * min(counts)


def test_the_page_has_a_section_for_every_script() -> None:
    page = README.read_text(encoding="utf-8")
    for name in every.SCRIPTS:
        assert f"<!-- {name} -->" in page and f"<!-- end of {name} -->" in page
        assert (README.parent / f"{name}.py").exists()


def test_tables_replace_what_was_between_their_marks() -> None:
    page = "a\n<!-- it -->\nold\n<!-- end of it -->\nb\n<!-- other -->\n<!-- end of other -->\n"
    page = every.insert_tables(page, {"it": "\nnew \\1\n\n"})
    assert page == "a\n<!-- it -->\nnew \\1\n<!-- end of it -->\nb\n<!-- other -->\n<!-- end of other -->\n"
    with pytest.raises(ValueError, match="no section"):
        every.insert_tables(page, {"third": ""})
