"""Resolution of the tracking URI."""

from __future__ import annotations

from pathlib import Path

import pytest

from coma_gen.core.errors import UserError
from coma_gen.tracking.store import open_store
from coma_gen.tracking.uri import check_address, tracking_address, ui_command


def test_the_store_is_in_the_home(tmp_path: Path) -> None:
    address = tracking_address(tmp_path)
    assert address.uri == f"sqlite:///{tmp_path}/mlflow.db"
    assert address.artifacts == tmp_path / "mlartifacts"
    command = "mlflow ui --backend-store-uri sqlite:///mlflow.db --host 127.0.0.1 --port 5000"
    assert ui_command(tmp_path) == command


def test_a_relative_database_starts_at_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///runs/my.db")
    assert tracking_address(tmp_path).uri == f"sqlite:///{tmp_path}/runs/my.db"
    assert tracking_address(tmp_path).artifacts == tmp_path / "runs" / "mlartifacts"
    assert "sqlite:///runs/my.db" in ui_command(tmp_path)


def test_a_server_decides_itself_and_its_password_is_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:secret@example.org/mlflow")
    address = tracking_address(tmp_path)
    assert address.artifacts is None
    assert address.shown == "https://example.org/mlflow" == ui_command(tmp_path)


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "sqlite:///mlflow.db",
        "sqlite:///runs/my.db",
        "http://127.0.0.1:5000",
        "https://me:secret@example.org/mlflow",
        "databricks",
        "databricks://profile",
    ],
)
def test_an_address_of_use_is_taken(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert check_address(tmp_path) == tracking_address(tmp_path)


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("./mlruns", "must be an address that MLflow keeps runs at"),
        ("mlruns", "must be an address that MLflow keeps runs at"),
        ("file:///tmp/mlruns", "must be an address that MLflow keeps runs at"),
        ("127.0.0.1:5000", "must be an address that MLflow keeps runs at"),
        (" http://127.0.0.1:5000", "must be an address that MLflow keeps runs at"),
        ("htp://example.org", "must be an address that MLflow keeps runs at"),
        ("sqlite:mlflow.db", "must be an address that MLflow keeps runs at"),
        ("sqlite://mlflow.db", "must be an address that MLflow keeps runs at"),
        ("sqlite+pysqlite:///mlflow.db", "must be an address that MLflow keeps runs at"),
        ("sqlite:///my.db?timeout=5", "must be without"),
        ("sqlite:////tmp/a%20b/my.db", "must be without"),
        ("sqlite:///", "must end with the name of a file"),
        ("http:/example.org", "must name a host"),
        ("http://", "must name a host"),
        ("http://[::1", "must name a host"),
        ("postgresql+asyncpg://me:secret@example.org/runs", "whose driver is installed, got .*asyncpg"),
        ("mysql+none://me:secret@example.org/runs", "must be a database's address"),
    ],
)
def test_one_of_no_use_is_refused_before_work_without_a_password(
    uri: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    for look in (check_address, open_store):
        with pytest.raises(UserError, match=reason) as caught:
            look(tmp_path)
        assert caught.value.faults[0].where == "MLFLOW_TRACKING_URI" and "secret" not in str(caught.value)


def test_a_folder_of_files_is_taken_where_mlflow_was_told_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "./mlruns")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    check_address(tmp_path)


@pytest.mark.parametrize("name", ["a%20b", "a?b", "100%ab"])
def test_a_checkout_where_the_runs_would_lie_elsewhere_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / name
    home.mkdir()
    with pytest.raises(UserError, match=r"must be without .* Move the checkout") as caught:
        check_address(home)
    assert caught.value.faults[0].where == str(home)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/elsewhere.db")
    check_address(home)


@pytest.mark.parametrize("name", ["a b", "a#b", "a%b", "a;b", "a&b", "é", "a@b:c"])
def test_names_that_only_look_odd_hold_a_store(name: str, tmp_path: Path) -> None:
    home = tmp_path / name
    home.mkdir()
    assert Path(check_address(home).uri.removeprefix("sqlite:///")) == home / "mlflow.db"
