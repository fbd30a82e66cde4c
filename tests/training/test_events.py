"""TensorBoard's event files equal the training curve, also after a resume."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from coma_gen.core.errors import UserError
from coma_gen.tracking.run_sync import CURVES
from coma_gen.training.events import NAMES, check_tensorboard
from coma_gen.training.metrics_log import MetricsLog, MetricsRow

ROWS = [
    MetricsRow(10, 100, 5.5, 0.001, 2.0, None),
    MetricsRow(20, 200, 5.25, 0.002, 1.5, 5.0),
    MetricsRow(30, 300, 5.125, 0.003, 1.25, None),
]


def scalars(folder: Path) -> dict[tuple[str, int], float]:
    """(name, step) -> value, of all event files: records of a length, its checksum, content, its checksum."""
    from tensorboardX.proto.event_pb2 import Event

    found = {}
    for path in folder.glob("events.out.tfevents.*"):
        content = path.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            event = Event.FromString(content[12 : 12 + length])
            content = content[16 + length :]
            for value in event.summary.value:
                assert (value.tag, event.step) not in found
                found[value.tag, event.step] = value.simple_value
    return found


def test_they_hold_the_curve_and_can_be_read_while_training_runs(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    with MetricsLog(tmp_path / "resume", events=tmp_path / "events") as log:
        for row in ROWS:
            log.append(row)
    found = scalars(tmp_path / "events")
    assert len(found) == 3 * 3 + 1
    assert found["loss/train", 20] == 5.25 and found["loss/validation", 20] == 5.0
    assert found["optimizer/learning_rate", 30] == pytest.approx(0.003)
    assert found["optimizer/grad_norm", 10] == 2.0


def test_a_run_that_is_gone_on_with_has_each_row_once(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    with MetricsLog(tmp_path / "resume", events=tmp_path / "events") as log:
        log.append(ROWS[0])
        checkpoint = log.text
        log.append(ROWS[1])
    with MetricsLog(tmp_path / "resume", checkpoint, events=tmp_path / "events") as log:
        log.append(ROWS[1])
        log.append(ROWS[2])
    assert [step for name, step in sorted(scalars(tmp_path / "events")) if name == "loss/train"] == [
        10,
        20,
        30,
    ]


def test_nothing_is_written_unless_asked_for(tmp_path: Path) -> None:
    with MetricsLog(tmp_path / "resume") as log:
        log.append(ROWS[0])
    assert {path.name for path in (tmp_path / "resume").iterdir()} == {"curve.csv", "speed.csv"}


def test_names_are_those_of_mlflow() -> None:
    assert NAMES == CURVES


def test_without_the_package_it_says_how_to_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coma_gen.training.events.find_spec", lambda _name: None)
    with pytest.raises(
        UserError, match=r"train\.tensorboard: needs the package tensorboardX.*\[tensorboard\]"
    ):
        check_tensorboard()
