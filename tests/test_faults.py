"""User errors: wrong params, no network, missing folders; and folders of a user's own music."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from checkout import DVC, dvc, git_status, make_checkout, set_params, stages_run
from subprocess_utils import attempt, run

from coma_gen.corpus.synthetic import write_synthetic

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout in which nothing has run, with an identity; each test changes params.yaml as it likes."""
    checkout = make_checkout(tmp_path_factory.mktemp("fresh") / "checkout")
    for key, text in (("user.name", "t"), ("user.email", "t@example.org")):
        run(checkout, "git", "config", key, text)
    return checkout


@pytest.fixture
def params(fresh: Path) -> Iterator[Path]:
    yield fresh / "params.yaml"
    run(fresh, "git", "checkout", "-q", ".")


class TestBadInput:
    @pytest.mark.usefixtures("params")
    def test_wrong_params_are_all_named_and_nothing_is_written(self, fresh: Path) -> None:
        set_params(fresh, {"model": {"num_layer": 2}, "train": {"learning_rate": "fast"}})
        status, output = attempt(fresh, *DVC, "repro")
        assert status != 0
        assert "model.num_layer" in output and "train.learning_rate" in output and "'fast'" in output
        assert "Traceback" not in output
        assert git_status(fresh) == [" M params.yaml"]
        assert not (fresh / "data").exists() or not list((fresh / "data").iterdir())

    @pytest.mark.usefixtures("params")
    def test_without_a_network_the_way_out_is_named(self, fresh: Path, tmp_path: Path) -> None:
        offline = {
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": "",
            "PIP_CACHE_DIR": str(tmp_path),
            "PIP_CONFIG_FILE": os.devnull,
        }
        set_params(fresh, {"download": {"corpus": "maestro-mini"}})
        status, output = attempt(fresh, *DVC, "repro", env=offline)
        assert status != 0
        assert "dvc exp run -S download.corpus=synthetic" in output and "Traceback" not in output
        assert not (fresh / "data" / "corpus").exists()

    @pytest.mark.usefixtures("params")
    def test_a_folder_that_is_not_there_is_named(self, fresh: Path, tmp_path: Path) -> None:
        set_params(fresh, {"download": {"corpus": "folder", "path": str(tmp_path / "none")}})
        status, output = attempt(fresh, *DVC, "repro")
        assert status != 0
        assert str(tmp_path / "none") in output and "Traceback" not in output


@pytest.fixture(scope="module")
def music(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few MIDI files of one's own, at several depths."""
    made, own = tmp_path_factory.mktemp("made"), tmp_path_factory.mktemp("own")
    write_synthetic(made, performances=12, seconds=6.0, seed=3)
    for number, path in enumerate(sorted(made.rglob("*.mid*"))):
        target = own / ("" if number % 3 else "A. Composer") / f"piece {number}.mid"
        target.parent.mkdir(exist_ok=True)
        shutil.copy(path, target)
    return own


class TestOwnMusic:
    @pytest.mark.usefixtures("params")
    def test_it_goes_through_the_data_stages_and_new_files_are_noticed(
        self, fresh: Path, music: Path
    ) -> None:
        set_params(
            fresh,
            {
                "download": {"corpus": "folder", "path": str(music)},
                "split": {"validation_fraction": 0.3, "test_fraction": 0.3},
            },
        )
        output = dvc(fresh, "repro", "shard")
        assert stages_run(output) == ["check", "download", "split", "fit_tokenizer", "shard"]
        split = yaml.safe_load((fresh / "metrics" / "split.json").read_text())
        assert sum(split[name]["performances"] for name in ("train", "validation", "test")) == 12
        assert "didn't change" in dvc(fresh, "repro", "download")
        (music / "one more.mid").write_bytes(next(music.glob("*.mid")).read_bytes())
        assert stages_run(dvc(fresh, "repro", "download")) == ["download"]

    @pytest.mark.usefixtures("params")
    def test_in_a_copy_of_the_checkout_an_absolute_path_is_asked_for(self, fresh: Path) -> None:
        (fresh / "music" / "mine.mid").write_bytes(b"known to this folder only")
        status, output = attempt(
            fresh, *DVC, "exp", "run", "--temp", "-S", "download.corpus=folder", "download"
        )
        (fresh / "music" / "mine.mid").unlink()
        assert status != 0
        assert "download.path" in output and "absolute path" in output and "Traceback" not in output
