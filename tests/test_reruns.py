"""An edit reruns exactly the stages that depend on it: params by key, source files, and unrelated files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from checkout import Built, copy_of, edited, git_status, set_params

from coma_gen.config.yaml_reader import read_yaml

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def another(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished checkout to be changed; each test puts back what it changes."""
    return copy_of(built.folder, tmp_path_factory.mktemp("another") / "checkout")


def changed_stages(checkout: Path) -> set[str]:
    """The stages that dvc would run because of themselves, not of a stage before them."""
    from dvc.repo import Repo

    with Repo(str(checkout)) as repo:
        return {name.rpartition(":")[2] for name in repo.status()}


FLOATING = {"baseline", "train", "evaluate", "sample", "report"}
"""Those whose floats depend on threads and instruction set."""
EDITS = [
    ("runtime", "threads", 2, FLOATING),
    ("runtime", "pin_cpu", False, FLOATING),
    ("runtime", "processes", 2, {"train"}),
    ("download", "synthetic_seed", 1, {"download"}),
    ("split", "seed", 1, {"split"}),
    ("tokenizer", "velocities", 17, {"fit_tokenizer"}),
    ("shard", "transpose", 5, {"shard"}),
    ("model", "num_layers", 2, {"train"}),
    ("train", "learning_rate", 1e-5, {"train"}),
    ("train", "early_stopping", 7, {"train"}),
    ("baseline", "bigram_prior", 11.5, {"baseline"}),
    ("evaluate", "bootstrap_resamples", 200, {"baseline", "evaluate"}),
    ("evaluate", "batch", 2, {"evaluate"}),
    ("sample", "temperature", 0.87, {"sample"}),
    ("report", "audio", True, {"report"}),
]


@pytest.fixture(autouse=True)
def _here(another: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(another)
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    assert changed_stages(another) == set()


@pytest.fixture
def params(another: Path) -> Iterator[Path]:
    path = another / "params.yaml"
    before = path.read_bytes()
    yield path
    path.write_bytes(before)


@pytest.mark.parametrize(
    ("section", "key", "value", "stages"), EDITS, ids=[f"{edit[0]}.{edit[1]}" for edit in EDITS]
)
def test_param(section: str, key: str, value: object, stages: set[str], another: Path, params: Path) -> None:
    assert read_yaml(params)[section][key] != value
    set_params(another, {section: {key: value}})
    assert changed_stages(another) == stages | {"check", "track"}


def test_every_section_is_tried(another: Path) -> None:
    assert {section for section, *_ in EDITS} == set(read_yaml(another / "params.yaml"))


def test_the_same_values_written_otherwise_rerun_nothing(another: Path, params: Path) -> None:
    content = read_yaml(params)
    params.write_text(
        "# another comment\n" + yaml.safe_dump(content, sort_keys=True, default_flow_style=True)
    )
    assert changed_stages(another) == set()


@pytest.mark.parametrize(
    "name",
    [
        "src/coma_gen/core/io.py",
        "src/coma_gen/corpus/synthetic.py",
        "src/coma_gen/midi/sustain.py",
        "src/coma_gen/model/attention.py",
        "src/coma_gen/training/loop.py",
        "src/coma_gen/evaluation/ngrams.py",
        "src/coma_gen/generation/token_decoder.py",
        "src/coma_gen/report/report.css",
        "src/coma_gen/tracking/run_sync.py",
        "src/coma_gen/cli/main.py",
        "stages/_start.py",
        "stages/sample.py",
    ],
)
def test_source_file(name: str, another: Path) -> None:
    stages = read_yaml(another / "dvc.yaml")["stages"]
    expected = {stage for stage, of in stages.items() if {name, str(Path(name).parent)} & set(of["deps"])}
    expected |= {"track"}
    before = (another / name).read_text()
    with edited(another / name, before, f"{before}\n"):
        assert changed_stages(another) == expected


def test_what_imports_and_installation_leave_reruns_nothing(another: Path) -> None:
    left = (
        "src/coma_gen/__pycache__/x.pyc",
        "stages/__pycache__/y.pyc",
        "src/coma_gen.egg-info/PKG-INFO",
    )
    for name in left:
        (another / name).parent.mkdir(exist_ok=True)
        (another / name).write_text("left")
    assert changed_stages(another) == set()
    assert git_status(another) == []
