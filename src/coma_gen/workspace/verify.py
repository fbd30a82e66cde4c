"""Compares a build with the committed one, in two tiers.

The data tier (download to shard) is integer work and agrees bit for bit on every machine. The model tier is
floating-point work: it agrees bit for bit on the kind of processor that the committed build was made on, and
on any other kind it stays within `TOLERANCE` of the committed metrics; what follows from a model that differs
may differ too. What was committed is read from git, so that the working tree's own dvc.lock and metrics can
be compared with it.
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
"""Committed beside dvc.lock: {"vendor": what `read_vendor` gave where the committed build was made}.
Whoever commits a new dvc.lock commits this with it.
"""
LOCK, METRICS = "dvc.lock", "metrics/"
"""What a build on another kind of processor may change of the tracked files."""
TOLERANCE = 0.05
"""Relative difference that a likelihood of the model tier may show on another kind of processor."""
TOLERATED_METRICS = {
    "train": ("best.validation_nll", "last.validation_nll"),
    "baseline": tuple(f"test.{name}.bits_per_note_10ms" for name in ("unigram", "bigram", "kneser_ney")),
    "evaluate": ("validation.bits_per_note_10ms", "test.bits_per_note_10ms"),
}


@dataclass(frozen=True)
class Row:
    """One stage held against the commit."""

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
    """Path -> digest of a stage's outs; none when it has not run."""
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
    """Whether the checkout's params.yaml says what the committed one does.

    Raises:
        UserError: when there is no committed one.
    """
    return bool(_parsed(root, "params.yaml") == read_yaml(root / "params.yaml"))


def changed_params(root: Path) -> list[tuple[str, str]]:
    """Section and key of every setting of the checkout's params.yaml that is not the committed one.

    Raises:
        UserError: when there is no committed one.
    """
    committed, here = _parsed(root, "params.yaml"), read_yaml(root / "params.yaml")
    known = committed if isinstance(committed, dict) else {}
    return [
        (section, key)
        for section, settings in here.items()
        for key, value in settings.items()
        if (key, value) not in (known.get(section) or {}).items()
    ]


def _parsed(root: Path, name: str) -> Any:
    text = _committed(root, name)
    if text is None:
        raise UserError(Fault(name, "must be committed to be compared with", "not in git's HEAD"))
    return parse_yaml(text, name=name)


def read_vendor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The vendor of this machine's processor as it names itself, such as GenuineIntel or AuthenticAMD.

    Where the system does not say, the kind of machine (such as arm64) stands for it.
    """
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    vendors = (line.partition(":")[2].strip() for line in lines if line.startswith("vendor_id"))
    return next(vendors, "") or platform.machine()


def committed_vendor(root: Path) -> str | None:
    """The vendor of the processor that the committed build was made on; None where the commit does not say.

    Raises:
        UserError: when the committed record is not what it should be.
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
    """Changed and new files of the checkout, as git sees them: what a build may change here, and the rest.

    Args:
        root: the checkout.
        vendor: of this machine's processor. On the committed build's own kind no file may change.
    """
    command = ["git", "-C", str(root), "status", "--porcelain", "--untracked-files=all", "-z"]
    printed = subprocess.run(command, capture_output=True, check=True).stdout.decode(errors="replace")
    paths = [entry[3:] for entry in printed.split("\0") if entry[2:3] == " "]
    is_other = committed_vendor(root) not in (None, vendor)
    allowed = [path for path in paths if is_other and (path == LOCK or path.startswith(METRICS))]
    return allowed, [path for path in paths if path not in allowed]


def compare(root: Path, vendor: str) -> Iterator[Row]:
    """One row a stage of dvc.yaml, in its order.

    Args:
        root: the checkout.
        vendor: of this machine's processor, as `read_vendor`.

    Raises:
        UserError: when there is nothing to compare with: no commit, or no lock in it.
    """
    before, now = _parsed(root, "dvc.lock"), read_yaml(root / "dvc.lock")
    is_exact = vendor == committed_vendor(root)
    may_differ = False
    for stage in read_yaml(root / "dvc.yaml")["stages"]:
        if stage not in UNCOMPARED:
            row = _row(
                root,
                stage,
                _outs(before, stage),
                _outs(now, stage),
                is_exact=is_exact,
                may_differ=may_differ,
            )
            may_differ |= row.verdict != IDENTICAL and row.tier == MODEL
            yield row


def _row(
    root: Path, stage: str, before: dict[str, str], now: dict[str, str], *, is_exact: bool, may_differ: bool
) -> Row:
    """Compares one stage with the commit.

    Args:
        root: the checkout.
        stage: its name.
        before: path -> digest of each committed out.
        now: the same of this build.
        is_exact: this is the committed build's own kind of processor, where every bit must agree.
        may_differ: a stage of the model tier before this one differs.
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
    """The rows as text."""
    lines = [f"  {'stage':<14}{'tier':<7}against the commit"]
    lines += [f"  {row.stage:<14}{row.tier:<7}{row.verdict}" for row in rows]
    return "\n".join(lines)
