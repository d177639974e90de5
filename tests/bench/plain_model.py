"""The bench's model as the peers call it: the same bundle, runtime and hashing of rows as the engine's.

Needs numpy, msgspec and ai-edge-litert alone, which every peer's environment has.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from model.scorer import LiteRTScorer


class PlainModel:
    """Scores rows of :func:`tests.bench.plain_fold.features`, any number at once."""

    def __init__(self, bundle: Path) -> None:
        self._scorer = LiteRTScorer.load(bundle)
        self.version = self._scorer.version

    def __call__(self, numeric: Sequence[Sequence[float]], ids: Sequence[Sequence[int]]) -> list[float]:
        """Return one score a row."""
        scores: list[float] = self._scorer.score(
            np.array(numeric, np.float32), np.array(ids, np.int32)
        ).tolist()
        return scores
