"""Ablation files are validated as a whole, and only comparable runs are compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from dvc.utils.hydra import to_hydra_overrides

from coma_gen.config.load import check_params, load_params
from coma_gen.config.rules import base_vocab_size
from coma_gen.config.schema import ModelParams, Params
from coma_gen.config.yaml_reader import read_yaml
from coma_gen.core.errors import UserError
from coma_gen.experiments.ablation import Ablation, Run, read_ablation
from coma_gen.model.attention import MultiScaleAttention
from coma_gen.model.compile import flex_obstacle
from coma_gen.model.conformer import Conformer, num_parameters
from coma_gen.workspace.presets import preset_flags

ROOT = Path(__file__).resolve().parents[2]
DEMO = load_params(ROOT / "params.yaml")
VOCABULARY = base_vocab_size(DEMO.tokenizer)
ALL = {path.stem: read_ablation(ROOT, path.stem) for path in (ROOT / "presets" / "ablations").glob("*.yaml")}
MODEL, TOKENIZER = ALL["model"], ALL["tokenizer"]


def parameters(model: ModelParams) -> int:
    return num_parameters(Conformer(params=model, vocab_size=VOCABULARY, seed=0))


def cells(ablation: Ablation) -> dict[str, Params]:
    return {run.cell: check_params(run.params) for run in ablation.runs}


def as_dvc_reads(flags: list[str]) -> dict[str, Any]:
    """key -> value, by what `dvc exp run -S` itself parses with."""
    return {override.key_or_group: override.value() for override in to_hydra_overrides(flags[1::2])}


def test_the_small_one_by_hand(small: Ablation) -> None:
    assert small.cells == {"base": "as it is", "wide": "twice as wide"}
    assert small.reference == "base"
    names = ["small-base-3", "small-wide-3", "small-base-4", "small-wide-4"]
    assert [run.name for run in small.runs] == names
    flags = as_dvc_reads(small.runs[3].flags)
    assert flags == {"train.steps": 30, "train.warmup_steps": 5, "train.seed": 4, "model.dim": 256}
    expected = read_yaml(ROOT / "params.yaml")
    expected["train"] |= {"steps": 30, "warmup_steps": 5, "seed": 4}
    expected["model"]["dim"] = 256
    assert small.runs[3].params == expected


@pytest.mark.parametrize("ablation", [ALL[name] for name in sorted(ALL)], ids=lambda ablation: ablation.name)
def test_flags_come_through_dvc_as_the_params_of_the_run(ablation: Ablation) -> None:
    for run in ablation.runs:
        read = as_dvc_reads(run.flags)
        assert read == {
            name: run.params[name.split(".")[0]][name.split(".")[1]] for name in read
        } and changed(run) <= set(read)


def changed(run: Run) -> set[str]:
    """Every key in which a run's params differ from params.yaml."""
    params = read_yaml(ROOT / "params.yaml")
    return {
        f"{section}.{key}"
        for section, keys in run.params.items()
        for key, value in keys.items()
        if params[section][key] != value
    }


@pytest.mark.parametrize("cell", MODEL.cells)
def test_models_have_the_same_parameters_within_a_hundredth(cell: str) -> None:
    assert parameters(cells(MODEL)[cell].model) == pytest.approx(parameters(DEMO.model), rel=0.01)


def test_the_reference_cells_are_the_model_and_tokenizer_of_params_yaml() -> None:
    assert cells(MODEL)["base"].model == DEMO.model
    assert cells(TOKENIZER)["base"].model == DEMO.model
    assert cells(TOKENIZER)["base"].tokenizer == DEMO.tokenizer


@pytest.mark.parametrize("ablation", [MODEL, TOKENIZER], ids=lambda ablation: ablation.name)
def test_all_cells_see_the_same_tokens_of_the_same_music_in_the_same_order(ablation: Ablation) -> None:
    free = {"model", "tokenizer"}
    same = [
        {name: section for name, section in params.model_dump().items() if name not in free}
        for params in cells(ablation).values()
    ]
    for params in same:
        params["train"].pop("learning_rate")
        assert params == same[0]


def test_a_tokenizer_cell_changes_one_factor_and_what_it_forces() -> None:
    forced = {"max_onset_rms_ms"}
    base = DEMO.tokenizer.model_dump()
    for cell, params in cells(TOKENIZER).items():
        assert params.model == DEMO.model
        other = {name for name, value in params.tokenizer.model_dump().items() if value != base[name]}
        if cell == "positions-12":
            forced |= {"duration_bins"}  # steps that do not divide 12
        if cell != "reference":
            assert len(other - forced) == (cell != "base"), cell
        forced -= {"duration_bins"}


def with_preset(name: str) -> Params:
    params = read_yaml(ROOT / "params.yaml")
    for key, value in as_dvc_reads(preset_flags(ROOT, name)).items():
        section, name = key.split(".")
        params[section][name] = value
    return check_params(params)


def test_the_plain_transformer_on_all_of_maestro_is_equal_but_for_the_model() -> None:
    ours, plain = with_preset("maestro-cpu"), with_preset("maestro-cpu-plain")
    assert parameters(plain.model) == pytest.approx(parameters(ours.model), rel=0.01)
    assert plain.model_copy(update={"model": ours.model}) == ours
    assert plain.model.window_sizes == (plain.train.seq_len,)


def test_the_model_for_one_gpu_is_what_its_preset_says() -> None:
    params = with_preset("maestro")
    assert 13.5e6 < parameters(params.model) < 15e6
    assert params.train.seq_len == 2048 >= max(params.model.window_sizes)
    assert params.train.augment and params.shard.transpose == 6 and len(params.shard.tempo_factors) == 4
    assert params.train.optimizer == "muon" and params.train.max_minutes is not None
    assert 0 < params.train.decay_fraction < 0.5 and params.train.min_learning_rate_ratio == 0
    assert {params.train.weight_decay, params.train.muon_weight_decay} == {1.0}
    model = Conformer(params=params.model, vocab_size=9, seed=0)
    attentions = [module for module in model.modules() if isinstance(module, MultiScaleAttention)]
    assert all(flex_obstacle(attention, params.train.seq_len) is None for attention in attentions)


def test_the_published_setting_is_what_its_preset_says() -> None:
    params, ours = with_preset("published"), with_preset("maestro")
    assert (params.model, params.train) == (ours.model, ours.train) and params.train.seq_len == 2048
    assert params.split.method == "by-file"
    assert params.split.validation_fraction == params.split.test_fraction == 0.05
    tokenizer = params.tokenizer
    assert (tokenizer.velocities, tokenizer.positions_per_beat) == (32, 8)
    assert tokenizer.duration_bins == ((0, 4, 8), (4, 12, 4))
    assert params.shard.transpose == 3 and not params.shard.tempo_factors


@pytest.mark.parametrize("name", ["maestro", "published"])
def test_what_was_not_run_says_so(name: str) -> None:
    assert (ROOT / "presets" / f"{name}.yaml").read_text().startswith("# Not yet run. ")


def test_presets_are_the_cells_of_their_name() -> None:
    plain = with_preset("plain-transformer")
    assert plain.model == cells(MODEL)["plain-transformer"].model
    assert parameters(plain.model) == pytest.approx(parameters(DEMO.model), rel=0.01)
    assert plain.model_copy(update={"model": DEMO.model}) == DEMO, "nothing else differs from the demo"
    assert plain.model.window_sizes == (plain.train.seq_len,)
    assert with_preset("reference-tokenizer").tokenizer == cells(TOKENIZER)["reference"].tokenizer


WRONG = """  odd: {why: x, model: {head_dim: 31, dims: 3}}
  uneven: {why: x, model: {head_dim: 31}}
  slow: {why: x, train: {steps: 2}}
"""


def test_all_that_is_wrong_with_any_cell_is_said_at_once(checkout: Path) -> None:
    path = checkout / "presets" / "ablations" / "small.yaml"
    path.write_text(path.read_text() + WRONG)
    with pytest.raises(UserError) as caught:
        read_ablation(checkout, "small")
    said = [str(fault) for fault in caught.value.faults]
    assert len(said) == 3
    assert "presets/ablations/small.yaml: odd: model.dims" in said[0]
    assert "uneven: model.head_dim: must be even" in said[1]
    assert "slow: train.warmup_steps: must be less than train.steps (2)" in said[2]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("preset: few", "preset: none", r"preset 'none'.*There are: few"),
        ("preset: few", "prest: few", "must have preset, base, seeds and cells"),
        ("[3, 4]", "[3, 3]", "seeds: must be different whole numbers"),
        ("[3, 4]", "[]", "seeds: must be different whole numbers"),
        ("[3, 4]", "[true]", "seeds: must be different whole numbers"),
        ("{train: {warmup_steps: 5}}", "[]", "base: must map section names"),
        ("  wide:", "  Wide one:", "Wide one: must be named with lower-case letters"),
        ("why: twice as wide, ", "", "wide: must have a description"),
        ("model: {dim: 256}", "model: 256", "wide: must map section names"),
        ("steps: 30", "seed: 30", r"wide: train\.seed: must not be set"),
    ],
)
def test_another_form_is_refused(checkout: Path, old: str, new: str, message: str) -> None:
    path = checkout / "presets" / "ablations" / "small.yaml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(UserError, match=message):
        read_ablation(checkout, "small")


def test_an_unknown_ablation_is_refused_with_those_that_there_are(checkout: Path) -> None:
    with pytest.raises(UserError, match=r"ablation 'big': must be a file in presets/ablations/.*small"):
        read_ablation(checkout, "big")
