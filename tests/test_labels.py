"""Facts about retrain/labels.py: as many labels are known as the training would find."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from model.example_log import DAY_MS, ExampleLog
from model.split import settled
from model.usecase import Duration, Training
from retrain.labels import Labels
from tests.builders import WINDOW, prepared, replaced
from tests.builders import examples as made

TRAINING = Training(train=Duration(2 * 86400.0), validate=Duration(86400.0))
START = 1_700_000_000_000


def log_of(folder: Path, days: int = 5, a_day: int = 100) -> ExampleLog:
    """``a_day`` decisions a day, of either label in turn, whose windows are two days long."""
    n = days * a_day
    time = START + np.arange(n, dtype=np.int64) * (DAY_MS // a_day)
    table = {"id": [f"d{i}" for i in range(n)], "time": time, "closes": time + 2 * DAY_MS}
    log = ExampleLog(folder)
    log.append(pa.table(table | {"label": np.tile(np.array([0, 1], np.int8), n // 2)}), "a")
    return log


class Clock:
    """Seconds that a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """The time."""
        return self.now


def test_labels_are_counted_from_a_moment_on(tmp_path: Path) -> None:
    """Or, without one, over what training takes; none where there is no log."""
    labels = Labels(log_of(tmp_path / "log"), TRAINING, Clock())
    assert labels(START) == 499  # the last is a positive whose window is open
    assert labels(START + DAY_MS) == 399
    assert labels(START + 9 * DAY_MS) == 0
    assert 200 <= (labels(None) or 0) <= 400
    assert Labels(ExampleLog(tmp_path / "none"), TRAINING, Clock())(None) == 0


def test_labels_that_became_known_since_training_are_those_whose_window_closed_after(tmp_path: Path) -> None:
    """Decisions from before count if their window was open then."""
    labels = Labels(log_of(tmp_path / "log"), TRAINING, Clock(), longest_s=2 * 86400.0)
    assert labels.since_trained(START + 3 * DAY_MS) == 398  # those from a day after the start on
    assert labels.since_trained(START + 9 * DAY_MS) == 0
    assert labels(START) == 499


def test_what_is_known_is_what_the_split_takes(tmp_path: Path) -> None:
    """Positives whose window is open are left out there, too."""
    table = made(1000)
    closes = table.column("closes").to_numpy() + np.where(
        table.column("label").to_numpy() == 1, 50 * WINDOW, 0
    )
    table = replaced(table, "closes", closes)
    matured, _ = settled(prepared(tmp_path / "whole", table), None)
    log = ExampleLog(tmp_path / "log")
    log.append(table, "a")
    assert Labels(log, TRAINING, Clock())(0) == len(matured) < len(table)


def test_a_count_is_taken_again_after_a_while(tmp_path: Path) -> None:
    """Not each second: a log may be large and far away."""
    clock = Clock()
    log = log_of(tmp_path / "log", days=1)
    labels = Labels(log, TRAINING, clock)
    before = labels(START)
    log_of(tmp_path / "log", days=2)
    clock.now = 9.0
    assert labels(START) == before
    clock.now = 10.0
    assert labels(START) == 199


def test_a_slow_log_is_read_a_twentieth_of_the_time(tmp_path: Path) -> None:
    """The trainer decides nothing else meanwhile."""
    clock, reads = Clock(), 0
    log_of(tmp_path / "log", days=1)

    class Slow(ExampleLog):
        def read(self, *given: Any, **named: Any) -> pa.Table:
            nonlocal reads
            reads += 1
            clock.now += 3.0
            return super().read(*given, **named)

    labels = Labels(Slow(tmp_path / "log"), TRAINING, clock)
    labels(START)
    for clock.now, expected in ((13.0, 1), (62.0, 1), (63.0, 2)):
        assert labels(START) == 99
        assert reads == expected


def test_a_log_that_cannot_be_read_counts_nothing_and_stops_nothing(tmp_path: Path) -> None:
    """It is not zero: nobody knows."""
    (tmp_path / "log" / "date=2023-11-14").mkdir(parents=True)
    (tmp_path / "log" / "date=2023-11-14" / "bad.parquet").write_bytes(b"no parquet")
    assert Labels(ExampleLog(tmp_path / "log"), TRAINING, Clock())(START) is None
