"""The launcher of ranks on one machine, with children that end in various ways."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from coma_gen.core.errors import UserError
from coma_gen.training import launch
from coma_gen.training.launch import LOST, RENDEZVOUS, is_first_rank, is_rank, launch_ranks

PRELUDE = "import os, signal, sys, time; from pathlib import Path; rank = int(os.environ['RANK'])\n"


def start(body: str, *arguments: object, processes: int = 2) -> None:
    launch_ranks(
        [sys.executable, "-c", PRELUDE + body, *(str(each) for each in arguments)], processes=processes
    )


def test_each_rank_is_told_who_it_is(tmp_path: Path) -> None:
    start(
        "import json; Path(sys.argv[1], str(rank)).write_text(json.dumps(dict(os.environ)))",
        tmp_path,
        processes=3,
    )
    told = [json.loads((tmp_path / str(rank)).read_text()) for rank in range(3)]
    assert [(each["RANK"], each["LOCAL_RANK"], each["WORLD_SIZE"]) for each in told] == [
        (str(rank), str(rank), "3") for rank in range(3)
    ]
    assert len({each[RENDEZVOUS] for each in told}) == 1
    assert not Path(told[0][RENDEZVOUS]).parent.exists(), "nothing is left behind"
    assert all(each["GLOO_SOCKET_IFNAME"].startswith("lo") for each in told)
    assert not is_rank() and is_first_rank()


@pytest.mark.parametrize("failing", [0, 1])
def test_a_killed_rank_is_named(failing: int) -> None:
    body = f"os.kill(os.getpid(), 9) if rank == {failing} else (time.sleep(0.3), sys.exit({LOST}))"
    with pytest.raises(
        UserError, match=rf"rank {failing} of 2 \(process \d+\): was ended by SIGKILL.* resumes from the last"
    ):
        start(body)


def test_a_lost_connection_without_a_cause_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match=r"rank 0 of 2 .*: lost its connection"):
        start(f"sys.exit({LOST})")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("status", "others"), [(3, LOST), (1, 0), (1, 1)])
def test_a_rank_that_failed_has_said_why(status: int, others: int) -> None:
    with pytest.raises(SystemExit) as caught:
        start(f"sys.exit({status} if rank else {others})")
    assert caught.value.code == status


@pytest.mark.parametrize("status", [4, 130])
def test_who_does_not_end_by_itself_is_killed(
    status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "GRACE_SECONDS", 0.3)
    body = f"""
if rank: time.sleep(0.5), sys.exit({status})
Path(sys.argv[1], "pid").write_text(str(os.getpid()))
time.sleep(600)
"""
    with pytest.raises(SystemExit) as caught:
        start(body, tmp_path)
    assert caught.value.code == status
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_passed_on_once_and_waited_for(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They may take longer for it than the grace that is left to the others when one has ended."""
    monkeypatch.setattr(launch, "GRACE_SECONDS", 0.4)
    body = f"""
heard = []
signal.signal({int(number)}, lambda number, frame: heard.append(number))
Path(sys.argv[1], f"ready-{{rank}}").touch()
while not heard: time.sleep(0.02)
time.sleep(0.8)
Path(sys.argv[1], f"heard-{{rank}}").write_text(str(len(heard)))
sys.exit(128 + {int(number)})
"""

    def ask() -> None:
        while len(list(tmp_path.glob("ready-*"))) < 2:
            time.sleep(0.02)
        os.kill(os.getpid(), number)

    asking = threading.Thread(target=ask)
    asking.start()
    with pytest.raises(SystemExit) as caught:
        start(body, tmp_path)
    asking.join()
    assert caught.value.code == 128 + number
    assert [(tmp_path / f"heard-{rank}").read_text() for rank in (0, 1)] == ["1", "1"]
