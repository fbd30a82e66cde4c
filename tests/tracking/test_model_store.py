"""A registered model is restored as the folder that was trained."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from small_models import written_model

from coma_gen import load_model
from coma_gen.core.artifact import verify_artifact, write_manifest
from coma_gen.core.errors import UserError
from coma_gen.tracking.model_store import download_model, is_uri
from coma_gen.tracking.registry import register_model
from coma_gen.tracking.run_sync import find_or_start_run
from coma_gen.tracking.store import Store


@pytest.fixture
def registered(store: Store, tmp_path: Path) -> Path:
    """A model's folder, which is now version 1 and the champion."""
    folder = tmp_path / "model"
    (folder / "tokenizer").mkdir(parents=True)
    (folder / "best.safetensors").write_bytes(b"weights")
    (folder / "tokenizer" / "vocabulary.json").write_text("{}")
    write_manifest(folder / "tokenizer", kind="tokenizer", made_from={}, settings={})
    write_manifest(folder, kind="model", made_from={}, settings={})
    run_id = find_or_start_run(store, key="a-1", name="a")
    register_model(store, run_id, folder=folder, score=None)
    return folder


@pytest.mark.parametrize(
    "uri", ["models:/coma-gen@champion", "models:/coma-gen/1", "models:/coma-gen/latest"]
)
def test_a_registered_model_comes_back_whole(uri: str, registered: Path, home: Path) -> None:
    before = dict(os.environ)
    with download_model(uri, home) as folder:
        assert verify_artifact(folder, kind="model") == verify_artifact(registered, kind="model")
    assert not folder.exists()
    assert dict(os.environ) == before


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("models:/coma-gen@nobody", "nobody not found"),
        ("models:/coma-gen/99", "version=99"),
        ("models:/others/1", "others"),
        ("models:/", "must name a model that MLflow"),
        ("runs:/0123/model", "must name a model that MLflow"),
    ],
)
def test_what_is_not_there_is_refused_in_one_line(uri: str, words: str, registered: Path, home: Path) -> None:
    with pytest.raises(UserError) as caught, download_model(uri, home):
        pass
    assert str(caught.value).startswith(f"{uri}: must name a model") and words in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_the_python_api_loads_a_registered_model(
    store: Store, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = written_model(tmp_path / "trained")
    register_model(store, find_or_start_run(store, key="a-1", name="a"), folder=folder, score=None)
    monkeypatch.chdir(home)
    loaded = load_model("models:/coma-gen@champion")
    assert loaded.digest == load_model(folder).digest
    settings = {"seconds": 1, "tokens": 60, "seed": 2}
    assert loaded.generate(**settings).midi == load_model(folder).generate(**settings).midi


def test_no_store_is_made_where_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no store there"), download_model("models:/coma-gen/1", tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_what_is_none_of_ours_is_refused(store: Store, home: Path, tmp_path: Path) -> None:
    run_id = find_or_start_run(store, key="a-1", name="a")
    (tmp_path / "notes.txt").write_text("no model")
    store.client.log_artifact(run_id, str(tmp_path / "notes.txt"))
    uri, words = f"runs:/{run_id}/notes.txt", "must be a model that coma-gen registered"
    with pytest.raises(UserError, match=words), download_model(uri, home):
        pass


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("models:/coma-gen@champion", True),
        ("runs:/abc/model", True),
        ("https://server/model", True),
        ("data/model", False),
        ("/data/model", False),
        ("./models:/x", False),
        ("c:/model", False),
    ],
)
def test_uris_and_folders(text: str, expected: bool) -> None:
    assert is_uri(text) is expected
