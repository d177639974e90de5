"""The gate: whether a challenger may take the place of the live model, the champion. Pure: labels and two models' scores in.

Both are compared on the same decisions, later than any that either was trained on. :mod:`retrain.pipeline` asks, and the
decision is stored with the version.
"""

from __future__ import annotations

import msgspec


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Champion and challenger on the same ``rows``; ``slice`` and ``value`` are empty for all of them.

    ``difference`` is the challenger's mean log-loss minus the champion's, ``low`` and ``high`` its 95 % interval by a
    bootstrap that draws users: negative is better. AUC is None where only one label is there.
    """

    slice: str
    value: str
    rows: int
    champion_log_loss: float
    challenger_log_loss: float
    champion_auc: float | None
    challenger_auc: float | None
    difference: float
    low: float
    high: float


class GateDecision(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the challenger passes, why, and the numbers; times are ISO 8601. The first of ``compared`` is over all rows.

    ``champion`` is empty where nothing was live: then the challenger passes if it beats the constant base rate.
    """

    passed: bool
    reasons: tuple[str, ...]
    champion: str
    challenger: str
    margin: float
    begin: str  # of the holdout
    end: str
    compared: tuple[Comparison, ...]
