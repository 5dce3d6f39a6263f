"""Figures arrive where they are sent, and what goes wrong there stops nothing."""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tensorboardX.proto.event_pb2 import Event

from chrysalis_mlx.errors import TrainingError
from chrysalis_mlx.training.report import Subject, Tracker, trackers
from tests.training.engines import CountingEngine
from tests.training.runs import Training


@pytest.fixture
def subject(tmp_path: Path) -> Subject:
    return Subject("first", "0123456789abcdef", tmp_path / "training", {"training": {"steps": 7}})


def scalars(directory: Path) -> Iterator[tuple[str, int, float]]:
    """What TensorBoard would read: records of (length, its check, bytes, their check)."""
    for file in sorted(directory.glob("events.out.tfevents.*")):
        content, at = file.read_bytes(), 0
        while at < len(content):
            (length,) = struct.unpack_from("<Q", content, at)
            event = Event.FromString(content[at + 12 : at + 12 + length])
            at += length + 16
            for value in event.summary.value:
                yield value.tag, event.step, value.simple_value


def test_tensorboard_shows_every_figure(subject: Subject) -> None:
    training = Training(subject.directory)
    with trackers(["tensorboard"], subject, training.warnings.append) as opened:
        training(CountingEngine(), trackers=opened)
    shown = {(tag, step): value for tag, step, value in scalars(subject.directory / "tensorboard")}
    for event in training.events:
        for name, value in event.items():
            if name not in ("step", "kind"):
                assert shown.pop((f"{event['kind']}/{name}", event["step"])) == pytest.approx(value)
    assert shown == {}
    assert training.warnings == []


@pytest.mark.parametrize(("name", "package"), [("tensorboard", "tensorboardX"), ("wandb", "wandb"), ("trackio",) * 2])
def test_a_missing_package_is_told_with_the_extra_that_has_it(
    subject: Subject, monkeypatch: pytest.MonkeyPatch, name: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with (
        pytest.raises(TrainingError, match=rf'{name} cannot(.|\n)*pip install "chrysalis-mlx\[{name}\]"'),
        trackers([name], subject, pytest.fail),
    ):
        pytest.fail("nothing may begin")


def test_an_unknown_tracker_is_told_with_those_that_there_are(subject: Subject) -> None:
    with (
        pytest.raises(TrainingError, match=r"nothing called 'mlflow'(.|\n)*tensorboard, wandb, trackio"),
        trackers(["mlflow"], subject, pytest.fail),
    ):
        pytest.fail("nothing may begin")


def test_a_tracker_that_fails_is_told_once_and_the_training_goes_on(subject: Subject) -> None:
    training = Training(subject.directory)
    with trackers(["tensorboard"], subject, training.warnings.append) as opened:
        send = opened[0]._send
        assert send is not None

        def fail(numbers: dict[str, float], step: int) -> None:
            if step == 3:
                raise ConnectionError("the line is dead")
            send(numbers, step)

        opened[0]._send = fail
        assert training(CountingEngine(), trackers=opened).steps == 7
    assert training.warnings == ["tensorboard is left out from here on: the line is dead"]


def test_a_tracker_that_cannot_begin_is_told_and_left_out(subject: Subject) -> None:
    subject.directory.parent.joinpath("training").write_text("a file where a directory should be")
    warnings: list[str] = []
    with trackers(["tensorboard"], subject, warnings.append) as opened:
        opened[0].log({"step": 1, "kind": "train", "loss": 1.0})
    assert len(warnings) == 1
    assert warnings[0].startswith("tensorboard is left out from here on: ")


def test_wandb_offline(subject: Subject, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    subject.directory.mkdir()
    tracker = Tracker("wandb", wandb, subject, pytest.fail)
    tracker.log({"step": 1, "kind": "train", "loss": 1.5})
    tracker.close()
    [file] = subject.directory.glob("wandb/offline-run-*/run-*.wandb")
    assert subject.identity in file.name
    assert b"train/loss" in file.read_bytes()
    assert capsys.readouterr().out == ""
