"""Samples: the records of the ``samples`` topic, as the monitor reads them, and the rows that they become.

A record is a monitored decision's ``scores`` record, or its ``examples`` record once its label is final: the same with
a ``label``. What the detectors do not look at is not read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Annotated, Literal, NamedTuple

import msgspec
import numpy as np
from msgspec import Meta

from detectors.rows import Rows, Schema

# Offsets over which a decision that comes again is known: what a crash of a worker repeats is a run of events, and of a
# run of 8192 at most so many become samples, unless nearly every event is a monitored decision. About 0.6 MB.
MEMORY = 4096
LARGEST = float(np.finfo(np.float32).max)  # features are float32

Score = Annotated[float, Meta(ge=0, le=1)]


class SampleError(ValueError):
    """A record of the topic is no sample: what is wrong with it."""


class SampleRecord(NamedTuple):
    """A record of the topic; ``received`` is when the decision's event was sent, ms, 0 if that is not known."""

    offset: int
    received: int
    value: bytes | None


class Sample(msgspec.Struct, frozen=True, gc=False):
    """A decision; ``label`` is None as long as its outcome is not known, ``time`` is in ms.

    ``score`` is what was served, and ``uncorrected``, there while a prior correction is in force, the model's own.
    """

    id: Annotated[str, Meta(min_length=1)]
    time: Annotated[int, Meta(ge=0, lt=253_402_300_800_000)]  # before the year 10000
    score: Score
    model: str
    features: dict[str, float | str | None]
    label: Literal[0, 1] | None = None
    type: str = ""
    uncorrected: Score | None = None

    @property
    def own(self) -> float:
        """The model's own score: a correction that comes or goes is no drift, and the reference has none."""
        return self.score if self.uncorrected is None else self.uncorrected


class _Named(msgspec.Struct, frozen=True, gc=False):
    model: str = ""


_decode = msgspec.json.Decoder(Sample).decode
_decode_name = msgspec.json.Decoder(_Named).decode


def decode(value: bytes | None) -> Sample:
    """The sample in ``value``; raises :class:`SampleError`."""
    try:
        return _decode(value or b"")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SampleError(f"not a record of the samples topic: {error}") from error


def models_of(values: Iterable[bytes | None]) -> set[str]:
    """The versions that the samples ``values`` name; what is no sample names none."""
    found = set()
    for value in values:
        try:
            found.add(_decode_name(value or b"").model)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue
    return found - {""}


def check(sample: Sample, schema: Schema) -> None:
    """Raise :class:`SampleError` unless the features of ``sample`` are of the kinds of ``schema``; any may be missing."""
    features = sample.features
    for names, kind, what in ((schema.numeric, float, "number"), (schema.categorical, str, "string")):
        for name in names:
            value = features.get(name)
            if value is not None and not isinstance(value, kind):
                raise SampleError(
                    f"`{name}` is a {what} in model {sample.model}, got {value!r}; start the worker with the use case "
                    "that the model was trained with"
                )
            if isinstance(value, float) and abs(value) > LARGEST:
                raise SampleError(f"`{name}` is a float32, got {value!r}; correct the worker that wrote it")


def rows_of(samples: Sequence[Sample], received: Sequence[int], schema: Schema) -> Rows:
    """The rows of ``samples``, which :func:`check` has passed, and whose events were sent at ``received``, ms."""
    n = len(samples)
    features = [sample.features for sample in samples]
    numeric = np.empty((n, len(schema.numeric)))
    categorical = np.empty((n, len(schema.categorical)), np.object_)
    for j, name in enumerate(schema.numeric):
        numeric[:, j] = [each.get(name) for each in features]  # None becomes NaN
    for j, name in enumerate(schema.categorical):
        categorical[:, j] = [each.get(name) for each in features]
    return Rows(
        # As they were scored, and as a panel keeps them: what is restored must not differ by a rounding error.
        numeric=numeric.astype(np.float32).astype(np.float64),
        categorical=categorical,
        score=np.array([sample.own for sample in samples], np.float32).astype(np.float64),
        label=np.array([sample.label for sample in samples], np.float64),
        time=np.array([sample.time for sample in samples], np.int64),
        received=np.array(received, np.int64),
        key=np.array([_key(sample.id) for sample in samples], np.uint64),
    )


def _key(decision: str) -> int:
    return int.from_bytes(blake2b(decision.encode(), digest_size=8).digest(), "little")


class Repeats:
    """Knows the decisions of the last ``memory`` offsets, to tell those that come again.

    It depends on these records alone: whoever has read them knows what another who has read them knows.
    """

    def __init__(self, memory: int = MEMORY) -> None:
        self._memory = memory
        self._seen: dict[tuple[str, bool], int] = {}  # the offset where it came last
        self._order: deque[tuple[int, tuple[str, bool]]] = deque()

    def __len__(self) -> int:
        return len(self._order)

    def add(self, offset: int, sample: Sample) -> bool:
        """Whether ``sample``, at ``offset``, is there already: scored, or matured, as it is now."""
        seen, order = self._seen, self._order
        while order and order[0][0] < offset - self._memory:
            at, what = order.popleft()
            if seen[what] == at:
                del seen[what]
        what = (sample.id, sample.label is not None)
        known = what in seen
        seen[what] = offset
        order.append((offset, what))
        return known
