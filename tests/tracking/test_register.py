"""The registered model: once for each set of weights, the best one named, served as text in and text out."""

from __future__ import annotations

import ast
import base64
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import coma_gen.errors
from coma_gen.artefact import seal
from coma_gen.errors import Fault, UserError
from coma_gen.tracking.address import MODEL
from coma_gen.tracking.mirror import find_or_start_run
from coma_gen.tracking.register import CHAMPION, REQUIREMENTS, Registered, Score, register_model, requirements
from coma_gen.tracking.store import Store

SAMPLING = {
    "seconds": 30.0,
    "seed": 3,
    "temperature": 1.0,
    "top_k": None,
    "top_p": 0.95,
    "min_p": None,
    "prompted": 2,
}


@pytest.fixture
def make_model(tmp_path: Path) -> Callable[[bytes], Path]:
    def make(weights: bytes) -> Path:
        folder = tmp_path / f"model-{weights.decode()}"
        folder.mkdir(exist_ok=True)
        (folder / "model.safetensors").write_bytes(weights)
        seal(folder, kind="model", made_from={}, settings={})
        return folder

    return make


@pytest.fixture
def register(store: Store, make_model: Callable[[bytes], Path]) -> Callable[..., Registered]:
    def do(weights: bytes, score: Score | None = None, key: str = "a-1") -> Registered:
        run_id = find_or_start_run(store, key=key, name="a")
        return register_model(store, run_id, folder=make_model(weights), sampling=SAMPLING, score=score)

    return do


def test_one_version_for_one_set_of_weights(store: Store, register: Callable[..., Registered]) -> None:
    assert register(b"one", Score(12.5, "test", 100)) == Registered(version=1, is_new=True, is_champion=True)
    assert register(b"one", Score(12.5, "test", 100)) == Registered(version=1, is_new=False, is_champion=True)
    assert register(b"one", Score(12.5, "test", 100), key="b-1").version == 1
    assert len(store.client.search_model_versions(f"name = '{MODEL}'")) == 1
    for key in ("a-1", "b-1"):
        outputs = store.client.get_run(find_or_start_run(store, key=key, name="a")).outputs
        assert outputs is not None
        assert len(outputs.model_outputs) == 1


def test_an_interrupted_registration_is_taken_up_again(
    store: Store, register: Callable[..., Registered], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("coma_gen.tracking.register._new_version", interrupted)
        with pytest.raises(KeyboardInterrupt):
            register(b"one")
    assert register(b"one").version == 1
    assert len(store.client.search_logged_models([store.experiment_id])) == 1
    assert [version.version for version in store.client.search_model_versions(f"name = '{MODEL}'")] == [1]


def test_the_champion_moves_by_rule(store: Store, register: Callable[..., Registered]) -> None:
    def champion() -> str:
        return str(store.client.get_model_version_by_alias(MODEL, CHAMPION).version)

    register(b"one", Score(12.5, "mini", 100))
    assert not register(b"worse", Score(12.6, "mini", 100)).is_champion
    assert not register(b"unscored").is_champion
    assert champion() == "1"
    assert register(b"better", Score(12.4, "mini", 100)).is_champion
    assert champion() == "4"
    assert register(b"maestro", Score(13.0, "maestro", 9000)).is_champion
    assert not register(b"fine", Score(9.0, "own", 50)).is_champion
    assert champion() == "5"


def test_a_champion_named_by_hand_stays(store: Store, register: Callable[..., Registered]) -> None:
    register(b"by-hand")
    assert not register(b"other", Score(1.0, "mini", 100)).is_champion


def test_a_broken_model_is_not_registered(store: Store, make_model: Callable[[bytes], Path]) -> None:
    folder = make_model(b"one")
    (folder / "model.safetensors").write_bytes(b"other")
    run_id = find_or_start_run(store, key="a-1", name="a")
    with pytest.raises(UserError, match=r"model\.safetensors"):
        register_model(store, run_id, folder=folder, sampling=SAMPLING, score=None)
    assert store.client.search_model_versions(f"name = '{MODEL}'") == []


def test_requirements_name_versions_that_an_index_has() -> None:
    lines = requirements()
    assert all("==" in line and "+" not in line for line in lines)
    assert any(line.startswith("torch==2.") for line in lines)


def test_requirements_name_all_that_a_continuation_imports() -> None:
    library = Path(coma_gen.errors.__file__).parent
    files = [
        path
        for package in ("generation", "model", "tokenizer", "music", "params")
        for path in (library / package).glob("*.py")
    ]
    nodes = [node for path in files for node in ast.walk(ast.parse(path.read_text()))]
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    packages = {name.split(".")[0] for name in names} - set(sys.stdlib_module_names) - {"coma_gen"}
    of = {"yaml": "pyyaml", "pydantic_core": "pydantic"}
    assert {of.get(name, name) for name in packages} <= set(REQUIREMENTS)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What the generation was asked for; it answers with the prompt's own bytes and more."""
    calls: list[tuple[Any, ...]] = []

    def continue_midi(folder: Path, midi: bytes | None, **settings: Any) -> bytes:
        calls.append((folder, midi, settings))
        if midi == b"bad":
            raise UserError(Fault("prompt", "must be MIDI", "text"))
        return (midi or b"") + b" goes on"

    module = types.ModuleType("coma_gen.generation.continuation")
    module.continue_midi = continue_midi  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "coma_gen.generation.continuation", module)
    return calls


def test_it_is_served_from_its_own_files(
    store: Store,
    register: Callable[..., Registered],
    asked: list[tuple[Any, ...]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import mlflow
    import mlflow.pyfunc
    from mlflow.exceptions import MlflowException

    register(b"one")
    version = store.client.get_model_version_by_alias(MODEL, CHAMPION)
    logged = store.client.get_logged_model(version.tags["model.id"])
    folder = Path(logged.artifact_location)
    assert list(folder.rglob("*.pkl")) == []
    assert (folder / "code" / "coma_gen" / "errors.py").exists()
    assert list(folder.rglob("__pycache__")) == []
    assert (folder / "requirements.txt").read_text().split() == requirements()
    model = mlflow.pyfunc.load_model(str(folder))

    def predict(*rows: dict[str, Any]) -> list[bytes]:
        answer = model.predict(list(rows))
        return [base64.b64decode(text) for text in answer["midi"]]

    prompt = base64.b64encode(b"prompt").decode()
    assert predict({"midi": prompt, "seed": 7, "top_k": 5.0}, {"seconds": 2.5}) == [
        b"prompt goes on",
        b" goes on",
    ]
    first, second = (settings for _, _, settings in asked)
    default = {"seconds": 30.0, "seed": 3, "temperature": 1.0, "top_k": None, "top_p": 0.95, "min_p": None}
    assert first == {**default, "seed": 7, "top_k": 5, "prompt_seconds": None}
    assert second == {**default, "seconds": 2.5, "prompt_seconds": None}
    assert asked[0][0].is_relative_to(folder)
    for row, reason in (
        ({"midi": "not base64!"}, "base64"),
        ({"midi": base64.b64encode(b"bad").decode()}, "must be MIDI"),
        ({"seed": 1.5}, "whole number"),
        ({"seed": 1e300}, "whole number"),
        ({"what": "ever"}, "1 to 64 rows"),
    ):
        with pytest.raises(MlflowException, match=reason) as caught:
            predict(row)
        assert caught.value.get_http_status_code() == 400
