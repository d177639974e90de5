"""Witnesses: detectors of other libraries, whose evidence stands beside ours on a verdict.

alibi-detect's are in :mod:`detectors.windowed`, river's in :mod:`detectors.streaming`. ``detectors/panel.py`` asks all
of them once an alarm is raised. None decides anything: a witness that cannot be had, has too little to go by or breaks
says so in its testimony, and the verdict goes out without it.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

import msgspec

from detectors import streaming, windowed
from detectors.rows import Rows, Schema
from detectors.verdict import Testimony

NAMES = (*windowed.ON, *streaming.ON)


class Witness(Protocol):
    """A detector that compares a window with a reference; ``on`` is what it looks at.

    It keeps nothing from one call to the next and gives the same rows the same testimony. ``on`` is "features",
    "score", "label" or "loss". ``testify`` never raises.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def on(self) -> str: ...  # noqa: D102
    def testify(self, reference: Rows, window: Rows, schema: Schema) -> Testimony: ...  # noqa: D102


class _Guarded(msgspec.Struct, frozen=True):
    """A witness around a function that may raise or warn."""

    name: str
    on: str
    ask: Callable[[Rows, Rows, Schema], Testimony]

    def testify(self, reference: Rows, window: Rows, schema: Schema) -> Testimony:
        """What the detector says; what it raises becomes the note of a testimony without a finding."""
        try:
            with warnings.catch_warnings():
                # Of ties, small counts and deprecations: nothing the caller can act on.
                warnings.simplefilter("ignore")
                return self.ask(reference, window, schema)
        except Exception as error:  # noqa: BLE001  # another library's: anything may come, and scoring goes on
            return Testimony(self.name, self.on, None, note=f"{type(error).__name__}: {error}"[:500])


def witnesses(names: Sequence[str], events_between_false_alarms: int) -> tuple[list[Witness], list[str]]:
    """The witnesses ``names``, and those of the names that cannot be had because alibi-detect is not installed.

    ``events_between_false_alarms`` sets the thresholds of those that watch one event after another: more makes them
    slower and surer. The windowed tests go by p < .05. Nothing of alibi-detect or river is imported before the first
    one testifies. Raises :class:`ValueError` for a name that is none of ``NAMES``.
    """
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        raise ValueError(f"a witness is one of {', '.join(NAMES)}; got {', '.join(unknown)}")
    installed = importlib.util.find_spec("alibi_detect") is not None
    found: list[Witness] = []
    missing = []
    for name in names:
        if name in streaming.ON:
            ask = partial(streaming.ask, name, events_between_false_alarms)
            found.append(_Guarded(name, streaming.ON[name], ask))
        elif installed:
            ask = partial(windowed.ask, name, events_between_false_alarms)
            found.append(_Guarded(name, windowed.ON[name], ask))
        else:
            missing.append(name)
    return found, missing
