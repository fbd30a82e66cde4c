"""The model registry: one version per set of weights, an alias for the best, and the served model."""

from __future__ import annotations

import ast
import base64
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from small_models import SCALE, written_model

import coma_gen.core.errors
from coma_gen.core.artifact import write_manifest
from coma_gen.core.errors import UserError
from coma_gen.generation.generate import continue_midi
from coma_gen.generation.music_generator import MusicGenerator
from coma_gen.generation.request import Request
from coma_gen.midi.io import midi_bytes
from coma_gen.tracking.registry import CHAMPION, REQUIREMENTS, Registered, Score, register_model, requirements
from coma_gen.tracking.run_sync import find_or_start_run
from coma_gen.tracking.store import Store
from coma_gen.tracking.uri import MODEL


@pytest.fixture
def make_model(tmp_path: Path) -> Callable[[bytes], Path]:
    def make(weights: bytes) -> Path:
        folder = tmp_path / f"model-{weights.decode()}"
        folder.mkdir(exist_ok=True)
        (folder / "model.safetensors").write_bytes(weights)
        write_manifest(folder, kind="model", made_from={}, settings={})
        return folder

    return make


@pytest.fixture
def register(store: Store, make_model: Callable[[bytes], Path]) -> Callable[..., Registered]:
    def do(weights: bytes, score: Score | None = None, key: str = "a-1") -> Registered:
        run_id = find_or_start_run(store, key=key, name="a")
        return register_model(store, run_id, folder=make_model(weights), score=score)

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


def test_packing_does_not_search_the_whole_environment(
    register: Callable[..., Registered], monkeypatch: pytest.MonkeyPatch
) -> None:
    searched = []
    monkeypatch.setattr(
        "mlflow.utils.requirements_utils._init_packages_to_modules_map", lambda: searched.append(True)
    )
    assert register(b"one").is_new and searched == []


def test_an_interrupted_registration_is_taken_up_again(
    store: Store, register: Callable[..., Registered], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("coma_gen.tracking.registry._create_version", interrupted)
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
        register_model(store, run_id, folder=folder, score=None)
    assert store.client.search_model_versions(f"name = '{MODEL}'") == []


def test_requirements_name_versions_that_an_index_has() -> None:
    lines = requirements()
    assert all("==" in line and "+" not in line for line in lines)
    assert any(line.startswith("torch==2.") for line in lines)


def test_requirements_name_all_that_a_continuation_imports() -> None:
    library = Path(coma_gen.core.errors.__file__).parent
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
def served(store: Store, tmp_path: Path) -> Path:
    """The folder of a registered model whose weights are real, if untrained."""
    run_id = find_or_start_run(store, key="a-1", name="a")
    register_model(store, run_id, folder=written_model(tmp_path), score=None)
    version = store.client.get_model_version_by_alias(MODEL, CHAMPION)
    return Path(store.client.get_logged_model(version.tags["model.id"]).artifact_location)


def test_what_is_served_is_all_there(served: Path) -> None:
    assert list(served.rglob("*.pkl")) == [] and list(served.rglob("__pycache__")) == []
    assert (served / "code" / "coma_gen" / "core" / "errors.py").exists()
    assert (served / "requirements.txt").read_text().split() == requirements()


def test_it_answers_as_the_library_does_and_reads_the_weights_once(
    served: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow.pyfunc

    loads, load = [], MusicGenerator.load
    monkeypatch.setattr(MusicGenerator, "load", lambda folder: loads.append(folder) or load(folder))
    model = mlflow.pyfunc.load_model(str(served))
    rows: list[dict[str, Any]] = [
        {
            "midi": base64.b64encode(midi_bytes(SCALE)).decode(),
            "seconds": 2,
            "seed": 7,
            "prompt_seconds": 3.0,
        },
        {"seconds": 1.5, "num": 2, "top_k": 5.0, "midi": None, "tokens": 90},
    ]
    answer = [base64.b64decode(piece["midi"]) for piece in model.predict(rows)]
    assert len(loads) == 1 and loads[0].is_relative_to(served)
    composer = load(loads[0])
    first = Request(seconds=2.0, seed=7, prompt_seconds=3.0, tokens=20_000)
    second = Request(seconds=1.5, num=2, top_k=5, tokens=90)
    assert answer[:1] == continue_midi(composer, midi_bytes(SCALE), first, name="")
    assert answer[1:] == continue_midi(composer, None, second, name="")
    asked_by_threads_it_answers_the_same(model)


def asked_by_threads_it_answers_the_same(model: Any) -> None:
    requests = [[{"seconds": 1.0, "seed": seed, "tokens": 60, "num": 1 + seed % 2}] for seed in range(6)]
    alone = [model.predict(request) for request in requests]
    assert len({str(answer) for answer in alone}) == len(requests)
    with ThreadPoolExecutor(len(requests)) as threads:
        assert list(threads.map(model.predict, requests)) == alone


def test_what_cannot_be_met_is_refused_as_the_askers_fault(served: Path) -> None:
    import mlflow.pyfunc
    from mlflow.exceptions import MlflowException

    model = mlflow.pyfunc.load_model(str(served), model_config={"max_seconds": 2.0})
    for rows, reason in (
        ([{"midi": base64.b64encode(b"bad").decode()}], r"inputs\[0\]\.midi: must be a MIDI file"),
        ([{"seconds": 3}], r"inputs\[0\]\.seconds: must be at most 2"),
    ):
        with pytest.raises(MlflowException, match=reason) as caught:
            model.predict(rows)
        assert caught.value.get_http_status_code() == 400
