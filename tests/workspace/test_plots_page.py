"""The page of DVC's plots: self-contained, used by DVC, with a message where it cannot be built."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from checkout import dvc

from coma_gen.core.errors import UserError
from coma_gen.workspace.plots_page import write_page


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of Vega's, which take seconds to be put together."""
    bundle = SimpleNamespace(javascript_bundle=lambda snippet, vl_version: f"'</script>';{snippet}")
    monkeypatch.setitem(sys.modules, "vl_convert", bundle)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "config").write_text("")
    return tmp_path


@pytest.mark.usefixtures("scripts")
def test_the_scripts_stand_in_the_page_and_dvc_takes_it(checkout: Path) -> None:
    page = write_page(checkout).read_text()
    assert "<script>'<\\/script>';window.vegaEmbed = vegaEmbed;</script>" in page
    assert "http" not in page and "{scripts}" not in page
    assert page.count("{plot_divs}") == page.count("{refresh_tag}") == 1
    assert dvc(checkout, "config", "--local", "plots.html_template").strip() == "plots/page.html"


@pytest.mark.usefixtures("scripts")
def test_a_second_one_replaces_it(checkout: Path) -> None:
    write_page(checkout).write_text("an older one")
    assert "plot_divs" in write_page(checkout).read_text()


def test_without_the_package_nothing_is_written(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    with pytest.raises(UserError, match=r"vl-convert-python: must be installed\. Make \.venv"):
        write_page(checkout)
    assert [path.name for path in (checkout / ".dvc").iterdir()] == ["config"]


@pytest.mark.usefixtures("scripts")
def test_where_dvc_is_not(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"\.dvc: must exist"):
        write_page(tmp_path)
