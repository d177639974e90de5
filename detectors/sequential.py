"""The alarm: a mixture of e-detectors, which keeps the mean time between false alarms by construction.

Each channel is a bounded statistic g of a row whose mean is at most 0 while nothing has changed. Betting on it gives
factors 1 + b g of mean at most 1, and the Shiryaev-Roberts recursion M <- (M + 1) (1 + b g) of these has a mean of at
most t after t rows. The same holds for every weighted mean over channels and bets, whatever their dependence, so the
mean time until it reaches A is at least A (Shin, Ramdas and Rinaldo, "E-detectors", 2024, theorem 2.4; bets: Waudby-Smith
and Ramdas 2024). No correction for the number of channels is needed, nor for looking after every row.
"""

from __future__ import annotations

import msgspec
import numpy as np

from detectors.rows import Float64

# In standard deviations of the channel. Smaller ones would find smaller shifts, and errors of the reference with them.
BETS = (0.1, 0.25, 0.6)
MOST = 0.9  # of the bet that could lose everything


class State(msgspec.Struct):
    """What a detector knows of the rows since it began: bytes of M and N, both float64 [K, B], and the rows counted."""

    sums: bytes
    moments: bytes
    rows: int


class EDetector:
    """K channels in a mixture; ``lowest`` [K] is the least value each can take, ``weight`` [K] adds up to 1 or less.

    Channels come in standard deviations of the reference.
    """

    def __init__(self, lowest: Float64, weight: Float64) -> None:
        self._bets = np.minimum(np.array(BETS), MOST / -lowest[:, None])  # [K, B]
        self._weight = np.repeat(weight[:, None] / len(BETS), len(BETS), axis=1)  # [K, B]
        self._flat = self._weight.ravel()
        self.reset()

    def reset(self) -> None:
        """Forget all rows."""
        self._sums = np.zeros(self._bets.shape)
        # The sum over the times at which the change may have come, each weighing what it adds to M.
        self._moments = np.zeros(self._bets.shape)
        self.rows = 0

    def factors(self, values: Float64) -> Float64:
        """What the channels' ``values`` [n, K] multiply the bets by, [n, K, B]."""
        found: Float64 = 1 + values[:, :, None] * self._bets
        return found

    def add(self, factors: Float64, time: float) -> float:
        """Take a row in by its ``factors`` [K, B], and return the evidence: the weighted mean of M.

        ``time`` is that of the row, in any unit that counts from the first one.
        """
        sums, moments = self._sums, self._moments
        sums += 1
        sums *= factors
        moments += time
        moments *= factors
        self.rows += 1
        return float(sums.ravel() @ self._flat)

    def evidence(self) -> Float64:
        """The evidence by channel, [K]; its sum is what :meth:`add` returned."""
        return np.asarray((self._sums * self._weight).sum(axis=1))

    def levels(self) -> Float64:
        """M by channel, [K], as if each were watched alone."""
        return np.asarray(self._sums.mean(axis=1))

    def change(self) -> float:
        """When the change came: M is the posterior of its time, up to a factor, and this is the mean of that."""
        total = float((self._sums * self._weight).sum())
        return float((self._moments * self._weight).sum()) / total if total > 0 else 0.0

    def state(self) -> State:
        """What :meth:`restore` takes."""
        return State(self._sums.tobytes(), self._moments.tobytes(), self.rows)

    def restore(self, state: State) -> None:
        """Go on from ``state``, of a detector with the same channels."""
        self._sums = np.frombuffer(state.sums).reshape(self._bets.shape).copy()
        self._moments = np.frombuffer(state.moments).reshape(self._bets.shape).copy()
        self.rows = state.rows
