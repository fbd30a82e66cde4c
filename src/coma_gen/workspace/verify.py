"""Compares a build with the committed results, in two tiers.

The data tier (download to shard) uses integer arithmetic and is bit-identical on every machine. The model
tier uses floating-point arithmetic: it is bit-identical on processors of the vendor that the committed
results were made on, and within `TOLERANCE` of the committed metrics on others; outputs that depend on a
different model may differ too. The committed results are read from git, and compared with dvc.lock and
metrics of the working tree.
"""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coma_gen.config.yaml_reader import parse_yaml, read_yaml
from coma_gen.core.errors import Fault, UserError

DATA, MODEL, IDENTICAL = "data", "model", "identical"
DATA_TIER = ("check", "download", "split", "fit_tokenizer", "shard")
UNCOMPARED = ("track",)
PROCESSOR = ".dvc/processor.json"
"""{"vendor": result of `read_vendor`} of the machine that made the committed results.
Must be committed together with dvc.lock.
"""
LOCK, METRICS = "dvc.lock", "metrics/"
"""Tracked files that a build on a processor of another vendor may change."""
TOLERANCE = 0.05
"""Maximum relative difference of likelihoods of the model tier on a processor of another vendor."""
TOLERATED_METRICS = {
    "train": ("best.validation_nll", "last.validation_nll"),
    "baseline": tuple(f"test.{name}.bits_per_note_10ms" for name in ("unigram", "bigram", "kneser_ney")),
    "evaluate": ("validation.bits_per_note_10ms", "test.bits_per_note_10ms"),
}


@dataclass(frozen=True)
class Row:
    """The comparison of one stage with the committed results."""

    stage: str
    tier: str
    verdict: str
    good: bool


def _committed(root: Path, name: str) -> str | None:
    done = subprocess.run(
        ["git", "-C", str(root), "show", f"HEAD:./{name}"], capture_output=True, text=True, check=False
    )
    return done.stdout if done.returncode == 0 else None


def _outs(lock: dict[str, Any], stage: str) -> dict[str, str]:
    """Maps path -> digest of the outputs of a stage; empty if it has not run."""
    return {out["path"]: out["md5"] for out in lock.get("stages", {}).get(stage, {}).get("outs", ())}


def _leaf(tree: Any, path: str) -> float | None:
    for part in path.split("."):
        tree = tree.get(part) if isinstance(tree, dict) else None
    return float(tree) if isinstance(tree, int | float) else None


def _within_tolerance(root: Path, stage: str) -> tuple[str, bool]:
    committed = _committed(root, f"metrics/{stage}.json")
    path = root / "metrics" / f"{stage}.json"
    if committed is None or not path.exists():
        return f"metrics/{stage}.json is not there to compare", False
    here, there = json.loads(path.read_text(encoding="utf-8")), json.loads(committed)
    worst = 0.0
    for key in TOLERATED_METRICS[stage]:
        ours, theirs = _leaf(here, key), _leaf(there, key)
        if ours is None or theirs is None:
            return f"{key} is missing", False
        worst = max(worst, abs(ours - theirs) / abs(theirs))
    return f"within tolerance ({worst:.2%} of at most {TOLERANCE:.0%})", worst <= TOLERANCE


def has_committed_params(root: Path) -> bool:
    """Whether params.yaml is equivalent to the committed one.

    Raises:
        UserError: If there is no committed one.
    """
    return bool(_parse_committed(root, "params.yaml") == read_yaml(root / "params.yaml"))


def changed_params(root: Path) -> list[tuple[str, str]]:
    """Lists (section, key) of every setting in params.yaml that differs from the committed one.

    Raises:
        UserError: If there is no committed one.
    """
    committed, here = _parse_committed(root, "params.yaml"), read_yaml(root / "params.yaml")
    known = committed if isinstance(committed, dict) else {}
    return [
        (section, key)
        for section, settings in here.items()
        for key, value in settings.items()
        if (key, value) not in (known.get(section) or {}).items()
    ]


def _parse_committed(root: Path, name: str) -> Any:
    text = _committed(root, name)
    if text is None:
        raise UserError(Fault(name, "must be committed to be compared with", "not in git's HEAD"))
    return parse_yaml(text, name=name)


def read_vendor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Returns the vendor of this machine's processor, such as GenuineIntel or AuthenticAMD.

    If the system does not report it, returns the machine type, such as arm64.
    """
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    vendors = (line.partition(":")[2].strip() for line in lines if line.startswith("vendor_id"))
    return next(vendors, "") or platform.machine()


def committed_vendor(root: Path) -> str | None:
    """Returns the vendor of the processor that made the committed results; None if it was not recorded.

    Raises:
        UserError: If the committed record is malformed.
    """
    text = _committed(root, PROCESSOR)
    if text is None:
        return None
    try:
        return str(json.loads(text)["vendor"])
    except (ValueError, TypeError, KeyError):
        rule = 'must hold {"vendor": "..."}'
        raise UserError(Fault(PROCESSOR, rule, text[:80], f"git restore {PROCESSOR}")) from None


def changed_files(root: Path, vendor: str) -> tuple[list[str], list[str]]:
    """Lists the changed and new files of the checkout: those that a build may change here, and the others.

    Args:
        root: The checkout.
        vendor: Vendor of this processor; if it made the committed results, no file may change.
    """
    command = ["git", "-C", str(root), "status", "--porcelain", "--untracked-files=all", "-z"]
    printed = subprocess.run(command, capture_output=True, check=True).stdout.decode(errors="replace")
    paths = [entry[3:] for entry in printed.split("\0") if entry[2:3] == " "]
    is_other = committed_vendor(root) not in (None, vendor)
    allowed = [path for path in paths if is_other and (path == LOCK or path.startswith(METRICS))]
    return allowed, [path for path in paths if path not in allowed]


def compare(root: Path, vendor: str) -> Iterator[Row]:
    """Yields one row per stage, in the order of dvc.yaml.

    Args:
        root: The checkout.
        vendor: Vendor of this machine's processor, from `read_vendor`.

    Raises:
        UserError: If there is no commit, or no dvc.lock in it.
    """
    before, now = _parse_committed(root, "dvc.lock"), read_yaml(root / "dvc.lock")
    is_exact = vendor == committed_vendor(root)
    may_differ = False
    for stage in read_yaml(root / "dvc.yaml")["stages"]:
        if stage not in UNCOMPARED:
            row = _compare_stage(
                root,
                stage,
                _outs(before, stage),
                _outs(now, stage),
                is_exact=is_exact,
                may_differ=may_differ,
            )
            may_differ |= row.verdict != IDENTICAL and row.tier == MODEL
            yield row


def _compare_stage(
    root: Path, stage: str, before: dict[str, str], now: dict[str, str], *, is_exact: bool, may_differ: bool
) -> Row:
    """Compares one stage with the committed results.

    Args:
        root: The checkout.
        stage: Name of the stage.
        before: Path -> digest of the committed outputs.
        now: Path -> digest of the outputs of this build.
        is_exact: Whether the processor is of the same vendor, so that every bit must agree.
        may_differ: Whether an earlier stage of the model tier differs.
    """
    tier = DATA if stage in DATA_TIER else MODEL
    if not now or not all((root / path).exists() for path in now):
        return Row(stage, tier, "has not run, or its results are gone", False)
    if before == now:
        return Row(stage, tier, IDENTICAL, True)
    changed = ", ".join(
        sorted(path for path in before.keys() | now.keys() if before.get(path) != now.get(path))
    )
    if tier == MODEL and is_exact:
        return Row(stage, tier, f"DIFFERS: {changed}, on the committed build's kind of processor", False)
    if tier == MODEL and stage in TOLERATED_METRICS:
        verdict, good = _within_tolerance(root, stage)
        return Row(stage, tier, verdict if good else f"DIFFERS: {verdict}", good)
    if tier == MODEL and may_differ:
        return Row(stage, tier, "other bytes, as those of the model", True)
    return Row(stage, tier, f"DIFFERS: {changed}", False)


def table(rows: list[Row]) -> str:
    """Formats the rows as text."""
    lines = [f"  {'stage':<14}{'tier':<7}against the commit"]
    lines += [f"  {row.stage:<14}{row.tier:<7}{row.verdict}" for row in rows]
    return "\n".join(lines)
