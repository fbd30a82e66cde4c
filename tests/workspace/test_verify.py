"""Comparison of results with the commit: identical, within tolerance, or different, by tier."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from coma_gen.cli.main import main
from coma_gen.core.errors import UserError
from coma_gen.core.io import write_json
from coma_gen.workspace.verify import (
    changed_files,
    committed_vendor,
    compare,
    has_committed_params,
    read_vendor,
    table,
)

STAGES = ("download", "split", "train", "evaluate", "sample", "track")


def git(root: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run(["git", "-C", str(root), *identity, *arguments], check=True, capture_output=True)


def write_lock(root: Path, **digests: str) -> None:
    lock = {name: {"outs": [{"path": f"data/{name}", "md5": digests.get(name, "0")}]} for name in STAGES}
    (root / "dvc.lock").write_text(yaml.safe_dump({"stages": lock}))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "dvc.yaml").write_text(
        yaml.safe_dump({"stages": {name: {} for name in STAGES}}, sort_keys=False)
    )
    (tmp_path / "params.yaml").write_text("train: {steps: 1}\n")
    write_lock(tmp_path)
    write_json(tmp_path / ".dvc" / "processor.json", {"vendor": "GenuineIntel"})
    (tmp_path / ".gitignore").write_text("/data/\n")
    for name in STAGES:
        (tmp_path / "data" / name).mkdir(parents=True)
    metrics: dict[str, Any] = {"bits_per_note_10ms": 20.0}
    write_json(tmp_path / "metrics" / "evaluate.json", {"validation": metrics, "test": metrics})
    write_json(
        tmp_path / "metrics" / "train.json",
        {"best": {"validation_nll": 3.0}, "last": {"validation_nll": 3.0}},
    )
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-q", "-m", "built")
    return tmp_path


def verdicts(root: Path, vendor: str = "AuthenticAMD") -> dict[str, tuple[str, bool]]:
    return {row.stage: (row.verdict, row.good) for row in compare(root, vendor)}


def test_the_same_build_is_identical_and_tracking_is_not_compared(root: Path) -> None:
    write_lock(root, track="other")
    assert verdicts(root) == dict.fromkeys(STAGES[:-1], ("identical", True))


def test_the_data_tier_must_agree_bit_for_bit(root: Path) -> None:
    write_lock(root, split="1")
    assert verdicts(root)["split"] == ("DIFFERS: data/split", False)
    assert "DIFFERS: data/split" in table(list(compare(root, "AuthenticAMD")))


def test_the_model_tier_may_differ_within_tolerance(root: Path) -> None:
    write_lock(root, train="1", evaluate="1")
    near = {"bits_per_note_10ms": 20.5}
    write_json(root / "metrics" / "evaluate.json", {"validation": near, "test": near})
    verdict, good = verdicts(root)["evaluate"]
    assert good and "2.50% of at most" in verdict
    far = {"bits_per_note_10ms": 25.0}
    write_json(root / "metrics" / "evaluate.json", {"validation": near, "test": far})
    verdict, good = verdicts(root)["evaluate"]
    assert not good and verdict.startswith("DIFFERS")
    write_json(root / "metrics" / "evaluate.json", {"validation": near})
    assert verdicts(root)["evaluate"] == ("DIFFERS: test.bits_per_note_10ms is missing", False)


def test_what_follows_from_a_model_may_differ_only_with_it(root: Path) -> None:
    write_lock(root, sample="1")
    assert verdicts(root)["sample"] == ("DIFFERS: data/sample", False)
    write_lock(root, sample="1", train="1")
    assert verdicts(root)["sample"] == ("other bytes, as those of the model", True)


def test_a_stage_that_has_not_run_or_whose_results_are_gone_is_not_good(root: Path) -> None:
    (root / "data" / "split").rmdir()
    assert verdicts(root)["split"] == ("has not run, or its results are gone", False)
    (root / "dvc.lock").write_text("stages: {}\n")
    assert verdicts(root)["download"] == ("has not run, or its results are gone", False)


def test_other_params_are_noticed_and_no_commit_is_refused(
    root: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    assert has_committed_params(root)
    (root / "params.yaml").write_text("train: {steps: 2}\n")
    assert not has_committed_params(root)
    for function in (has_committed_params, lambda path: list(compare(path, "AuthenticAMD"))):
        with pytest.raises(UserError, match="must be committed"):
            function(tmp_path_factory.mktemp("bare"))


def test_on_the_committed_builds_own_processor_every_bit_must_agree(root: Path) -> None:
    write_lock(root, train="1", evaluate="1", sample="1")
    for stage in ("train", "evaluate", "sample"):
        assert verdicts(root)[stage][1]
        verdict, good = verdicts(root, "GenuineIntel")[stage]
        assert not good and verdict.startswith(f"DIFFERS: data/{stage}")


def test_only_lock_and_metrics_may_change_and_only_on_another_processor(root: Path) -> None:
    assert changed_files(root, "GenuineIntel") == changed_files(root, "AuthenticAMD") == ([], [])
    write_lock(root, train="1")
    write_json(root / "metrics" / "train.json", {})
    changed = ["dvc.lock", "metrics/train.json"]
    assert changed_files(root, "AuthenticAMD") == (changed, [])
    assert changed_files(root, "GenuineIntel") == ([], changed)
    (root / "params.yaml").write_text("train: {steps: 2}\n")
    for name in ("dvc.lock.orig", "left behind"):
        (root / name).write_text("")
    others = ["params.yaml", "dvc.lock.orig", "left behind"]
    assert changed_files(root, "AuthenticAMD") == (changed, others)


def test_a_forged_record_of_the_processor_forgives_nothing(root: Path) -> None:
    write_lock(root, train="1")
    write_json(root / ".dvc" / "processor.json", {"vendor": "Another"})
    assert committed_vendor(root) == "GenuineIntel"
    assert not verdicts(root, "GenuineIntel")["train"][1]
    assert changed_files(root, "AuthenticAMD") == (["dvc.lock"], [".dvc/processor.json"])
    (root / ".dvc" / "processor.json").write_text("[]")
    git(root, "commit", "-aqm", "forged")
    with pytest.raises(UserError, match="vendor"):
        verdicts(root)
    git(root, "rm", "-q", ".dvc/processor.json")
    git(root, "commit", "-qm", "none")
    (root / "dvc.lock").write_text("stages: {}\n")
    assert changed_files(root, "AuthenticAMD") == ([], ["dvc.lock"])


def test_a_processor_is_known_by_the_name_that_it_gives(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel name\t: x\n")
    assert read_vendor(tmp_path / "cpuinfo") == "AuthenticAMD"
    assert read_vendor(tmp_path / "missing")


def test_a_tree_with_other_params_is_no_clean_one(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(root)
    (root / "params.yaml").write_text("train: {steps: 2}\n")
    for arguments, status in ((["verify"], 0), (["verify", "--tree"], 1)):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == status
    assert "must not change these files:\n  params.yaml" in capsys.readouterr().out
