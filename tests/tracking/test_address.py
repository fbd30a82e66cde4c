"""Where the runs are kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from coma_gen.tracking.address import tracking_address, ui_command


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
