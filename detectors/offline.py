"""The monitor without Kafka: the samples of a replay, as they come, to verdicts in a file. ``eddyline replay --drift``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import msgspec

from detectors import view
from detectors.monitor import Bad, Monitor
from detectors.samples import SampleRecord
from detectors.verdict import Verdict


class Offline:
    """Writes the verdicts of ``monitor`` to ``path`` (JSON Lines) as :meth:`watch` is called; a context manager."""

    def __init__(self, monitor: Monitor, path: Path) -> None:
        self._monitor, self._path = monitor, path
        self._offset = 0
        self.verdicts: list[Verdict] = []
        self.scored = self.matured = 0
        self.bad: list[Bad] = []

    def watch(self, samples: Sequence[bytes]) -> None:
        """Take in ``samples``, the next records of what would be the topic."""
        records = [SampleRecord(offset, 0, value) for offset, value in enumerate(samples, self._offset)]
        self._offset += len(records)
        observed = self._monitor.observe(records)
        self._tell(observed.verdicts)
        self.scored += observed.scored
        self.matured += observed.matured
        self.bad += observed.bad

    def _tell(self, verdicts: Sequence[Verdict]) -> None:
        self._file.writelines(msgspec.json.encode(verdict) + b"\n" for verdict in verdicts)
        self.verdicts += verdicts

    def show(self) -> None:
        """Print what was watched, and the verdicts."""
        console = view.console()
        console.print(
            f"watched for drift: {self.scored:,} decisions as scored, {self.matured:,} with their label; "
            f"{len(self.verdicts):,} verdicts in {self._path}"
        )
        if self.bad:
            console.print(f"{len(self.bad):,} samples were bad. The first: {self.bad[0].detail}")
        view.show(self.verdicts, to=console)

    def __enter__(self) -> Self:
        self._file = self._path.open("wb")
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:  # no more samples are to come: the last blocks are over
            self._tell(self._monitor.finish().verdicts)
        self._file.close()
