"""Code structure: stages list their imports, imports follow the layers, __init__ files are empty."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from coma_gen.config.schema import Params
from coma_gen.config.yaml_reader import read_yaml
from local_imports import code_dependencies, write_dependencies

ROOT = Path(__file__).resolve().parents[1]
STAGES = read_yaml(ROOT / "dvc.yaml")["stages"]
LIBRARY = ROOT / "src" / "coma_gen"
GROUND = {"core"}
MAY_IMPORT = {
    "config": set(),
    "midi": {"config"},
    "corpus": {"midi", "config"},
    "model": {"config"},
    "tokenizer": {"midi", "config", "corpus"},
    "shards": {"corpus", "tokenizer", "midi", "config"},
    "generation": {"corpus", "tokenizer", "model", "midi", "config"},
    "training": {"shards", "model", "config"},
    "evaluation": {"generation", "shards", "corpus", "tokenizer", "model", "midi", "config"},
    "audio": {"midi", "config"},
    "report": {"audio", "generation", "corpus", "tokenizer", "midi", "config"},
    "listening": {
        "report",
        "evaluation",
        "generation",
        "shards",
        "tokenizer",
        "model",
        "midi",
        "config",
    },
    "serving": {"generation", "model", "config"},
    "play": {"serving", "report", "audio", "generation", "model", "midi", "config"},
    "workspace": {"corpus", "config"},
    "tracking": {"evaluation", "workspace", "serving", "generation", "config"},
    "experiments": {"report", "evaluation", "generation", "model", "config", "workspace"},
    "generated_piece": {"report", "audio", "generation", "midi", "config"},
    "api": {
        "generated_piece",
        "evaluation",
        "tracking",
        "workspace",
        "generation",
        "tokenizer",
        "model",
        "midi",
        "config",
    },
    "cli": {
        "experiments",
        "listening",
        "tracking",
        "play",
        "serving",
        "workspace",
        "report",
        "audio",
        "generation",
        "shards",
        "tokenizer",
        "model",
        "midi",
        "config",
    },
}
"""Package -> what it may import beside itself and core; the order is that of the layers, lowest first."""
ONLY_IN = {
    "miditok": {"tokenizer"},
    "symusic": {"midi", "tokenizer"},
    "mlflow": {"tracking", "serving"},
    "torch": {"model", "training", "evaluation", "generation", "serving"},
    "matplotlib": {"report"},
    "datatrove": {"shards"},
}


FLOATING = {"baseline", "train", "evaluate", "sample", "report"}
"""Stages whose floats depend on the threads and the instruction set that `run_stage` sets."""


def imports(path: Path) -> set[str]:
    """Full names of the modules that a file imports anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def package_of(path: Path) -> str:
    return path.relative_to(LIBRARY).parts[0].removesuffix(".py")


@pytest.mark.parametrize(
    "path", sorted(LIBRARY.rglob("*.py")), ids=lambda path: path.relative_to(LIBRARY).as_posix()
)
def test_imports_point_one_way(path: Path) -> None:
    package = package_of(path)
    ours = {name.split(".")[1] for name in imports(path) if name.startswith("coma_gen.")}
    allowed = GROUND if package in GROUND else GROUND | MAY_IMPORT.get(package, set()) | {package}
    assert ours <= allowed
    outside = {name.split(".")[0] for name in imports(path)}
    assert {name for name in outside & set(ONLY_IN) if package not in ONLY_IN[name]} == set()


def test_the_layers_have_no_circle() -> None:
    below: set[str] = set()
    order = list(MAY_IMPORT)
    for package in order:
        assert MAY_IMPORT[package] <= set(order[: order.index(package)]), package
        below.add(package)


def imported_modules(path: Path, modules: set[str]) -> set[str]:
    """Modules of the library that a file imports, `from package import module` included."""
    found = imports(path)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found & modules


def test_no_modules_import_each_other_even_for_types() -> None:
    paths = {
        ".".join(("coma_gen", *path.relative_to(LIBRARY).with_suffix("").parts)): path
        for path in LIBRARY.rglob("*.py")
        if path.name != "__init__.py"
    }
    graph = {name: imported_modules(path, set(paths)) for name, path in paths.items()}
    assert "coma_gen.generation.continuation" in graph["coma_gen.generation.ranking"]
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the modules


def test_no_file_of_the_library_is_longer_than_300_lines() -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in LIBRARY.rglob("*.py")}
    assert {path: length for path, length in lengths.items() if length > 300} == {}


@pytest.mark.parametrize("path", sorted(LIBRARY.glob("*/__init__.py")), ids=lambda path: path.parent.name)
def test_packages_open_with_a_docstring_only(path: Path) -> None:
    body = ast.parse(path.read_text()).body
    assert len(body) == 1 and isinstance(body[0], ast.Expr)


def test_stages_list_exactly_the_code_they_run() -> None:
    text = (ROOT / "dvc.yaml").read_text(encoding="utf-8")
    assert text == write_dependencies(text), "python tests/local_imports.py --write"


def test_code_is_listed_by_packages_where_most_of_them_runs() -> None:
    train, headline = (code_dependencies(ROOT / "stages" / f"{name}.py") for name in ("train", "headline"))
    assert {"stages/train.py", "stages/_start.py", "src/coma_gen/model", "src/coma_gen/training"} < set(train)
    assert "src/coma_gen/shards/read.py" in train and "src/coma_gen/shards" not in train
    assert [name for name in headline if "evaluation" in name] == [
        "src/coma_gen/evaluation/headline.py",
        "src/coma_gen/evaluation/plots.py",
    ]
    assert not [name for name in (*train, *headline) if "config" in name or "__init__" in name]


def test_dvc_yaml_is_short() -> None:
    assert len((ROOT / "dvc.yaml").read_text(encoding="utf-8").splitlines()) <= 220


@pytest.mark.parametrize("stage", ["train", "evaluate"])
def test_an_edit_of_the_decoder_neither_trains_nor_scores_again(stage: str) -> None:
    decoder = [name for name in STAGES[stage]["deps"] if name.startswith("src/coma_gen/generation")]
    assert not decoder and "src" not in STAGES[stage]["deps"] and "src/coma_gen" not in STAGES[stage]["deps"]


def test_dvc_knows_the_model_as_an_artifact() -> None:
    from dvc.repo import Repo

    with Repo(str(ROOT)) as repo:
        found = repo.artifacts.read()["dvc.yaml"]
    model = found["coma-gen"]
    assert (model.type, model.path) == ("model", "data/model") and model.path in STAGES["train"]["outs"]
    assert model.desc and list(found) == ["coma-gen"]


def test_track_runs_again_after_any_edit_of_code() -> None:
    assert {"src", "stages"} <= set(STAGES["track"]["deps"])


def test_every_stage_has_its_script_and_every_script_its_stage() -> None:
    assert {path.stem for path in (ROOT / "stages").glob("[a-z]*.py")} == set(STAGES)
    assert all(stage["cmd"] == f"exec python3 stages/{name}.py" for name, stage in STAGES.items())


def test_every_stage_stands_on_the_check_of_all_params() -> None:
    """DVC runs a stage, and stops behind it where it fails, before it touches those that stand on it."""
    first, *others = STAGES
    assert first == "check" and STAGES[first]["params"] == [{"params.yaml": None}]
    stand = {first}
    made = {name: set(_written(stage)) for name, stage in STAGES.items()}
    for name in others:
        if any(made[below] & set(STAGES[name]["deps"]) for below in stand):
            stand.add(name)
    assert stand == set(STAGES)


def _written(stage: dict[str, list[str | dict[str, object]]]) -> list[str]:
    """All that a stage writes."""
    return [_path(out) for kind in ("outs", "metrics", "plots") for out in stage.get(kind, [])]


def _path(out: str | dict[str, object]) -> str:
    return out if isinstance(out, str) else next(iter(out))


@pytest.mark.parametrize("stage", [name for name in STAGES if name not in ("check", "track")])
def test_stage_lists_exactly_the_params_it_reads(stage: str) -> None:
    tree = ast.parse((ROOT / "stages" / f"{stage}.py").read_text())
    chains = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    read = {chain.split(".")[1] for chain in chains if chain.startswith("params.")}
    if stage == "train":  # hands all of params to train_stage
        text = (LIBRARY / "training" / "stage.py").read_text()
        read |= {section for section in Params.model_fields if f"params.{section}" in text}
    if stage in FLOATING:
        read.add("runtime")
    assert {name.split(".")[0] for name in STAGES[stage].get("params", [])} == read


def test_every_section_of_params_belongs_to_a_stage() -> None:
    listed = {
        name.split(".")[0]
        for stage in STAGES.values()
        for name in stage.get("params", [])
        if isinstance(name, str)
    }
    assert listed == set(Params.model_fields)


def test_dvc_lists_the_headline_only() -> None:
    assert [_path(out) for stage in STAGES.values() for out in stage.get("metrics", [])] == [
        "metrics/headline.json"
    ]


def test_data_flows_forward_only() -> None:
    made: set[str] = set()
    for name, stage in STAGES.items():
        needed = {
            path for path in stage["deps"] if path.startswith(("data/", "metrics/")) and "$" not in path
        }
        assert needed <= made, name
        made |= set(_written(stage))
