"""Seeded worlds for the drift tests: rows whose law is known, the model that knows it, and ways in which it changes."""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from detectors.rows import Rows, Schema, rows_of

SCHEMA = Schema(("a", "b", "flag", "d"), ("plan",))
PLANS = ("basic", "family", "gold")
WEIGHTS = np.array([1.2, -0.8, 0.5, 0.0])


class World(msgspec.Struct, frozen=True, kw_only=True):
    """A law of rows; the defaults are the law that the model was made for.

    ``shift`` moves column ``a``, in standard deviations; ``prior`` is a base rate to resample to, None for the law's
    own; ``turned`` is the share by which the weights of ``a`` and ``b`` are exchanged; ``missing`` the share of missing
    ``b``; ``plans`` the shares of the categories; ``flag`` that of the binary column.
    """

    shift: float = 0.0
    prior: float | None = None
    turned: float = 0.0
    missing: float = 0.05
    plans: tuple[float, float, float] = (0.6, 0.3, 0.1)
    flag: float = 0.3

    def draw(self, n: int, seed: int, *, first: int = 0) -> Rows:
        """``n`` rows, a minute apart, numbered from ``first``."""
        random = np.random.default_rng(seed)
        columns, label, plan = self._sample(8 * n if self.prior is not None else n, random)
        if self.prior is not None:
            wanted = (random.random(n) < self.prior).astype(np.int64)
            pools = [np.flatnonzero(label == 0), np.flatnonzero(label == 1)]
            chosen = np.array([pools[each][k] for k, each in enumerate(wanted.tolist())])
            columns, label, plan = columns[chosen], label[chosen], plan[chosen]
        score = expit(columns @ WEIGHTS - 0.5)  # what the model has learned, whatever the world does
        columns[random.random(n) < self.missing, 1] = np.nan
        names = np.array(PLANS, np.object_)[plan][:, None]
        time = (first + np.arange(n, dtype=np.int64)) * 60_000
        return rows_of(columns, score, label, names, time, first_key=first)

    def _sample(
        self, n: int, random: np.random.Generator
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
        columns = random.normal(size=(n, 4))
        columns[:, 0] += self.shift
        columns[:, 2] = random.random(n) < self.flag
        weights = WEIGHTS.copy()
        weights[:2] = (1 - self.turned) * WEIGHTS[:2] + self.turned * WEIGHTS[1::-1]
        label = (random.random(n) < expit(columns @ weights - 0.5)).astype(np.float64)
        return columns, label, random.choice(3, n, p=self.plans)


def fed(rows: Rows, first: int = 0) -> tuple[Rows, NDArray[np.int64]]:
    """``rows`` as a panel gets them when outcomes are known at once: each scored, then with its label; and offsets."""
    twice = rows[np.repeat(np.arange(len(rows)), 2)]
    label = twice.label.copy()
    label[::2] = np.nan
    return msgspec.structs.replace(twice, label=label), np.arange(first, first + len(twice))


def unlabelled(rows: Rows) -> Rows:
    """``rows`` before their outcomes are known."""
    return msgspec.structs.replace(rows, label=np.full(len(rows), np.nan))


def odds(score: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log-odds of ``score``."""
    return np.asarray(logit(score))
