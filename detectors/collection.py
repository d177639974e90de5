"""Collections: rows that a panel gathers after an alarm, kept in its changelog piece by piece as they come."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import numpy as np

from detectors.rows import Rows, concatenate

PIECE = 250  # rows: of 200 columns, some 220 kB, well below what Kafka takes in one record
_ENDS = ("numeric", "score", "label")  # kept as float32: they came as that


class Collection:
    """Rows in their order, in numbered pieces; the last rows are in no piece until :meth:`seal`."""

    def __init__(self, pieces: Iterable[tuple[int, Rows]] = ()) -> None:
        self._pieces = dict(pieces)
        self._loose: list[Rows] = []
        self._count = sum(map(len, self._pieces.values()))

    def __len__(self) -> int:
        return self._count

    @property
    def pieces(self) -> list[int]:
        """Numbers of the pieces."""
        return list(self._pieces)

    @property
    def rows(self) -> Rows:
        """All rows; there must be some."""
        return concatenate([*self._pieces.values(), *self._loose])

    def add(self, rows: Rows) -> None:
        """Add ``rows`` at the end."""
        if len(rows):
            self._loose.append(rows)
            self._count += len(rows)

    def seal(self, number: int) -> list[tuple[int, bytes]]:
        """Make pieces of the loose rows, numbered from ``number`` on, and return them as bytes."""
        found: list[tuple[int, bytes]] = []
        if self._loose:
            loose = concatenate(self._loose)
            self._loose = []
            for begin in range(0, len(loose), PIECE):
                piece = loose[begin : begin + PIECE]
                self._pieces[number + len(found)] = piece
                found.append((number + len(found), pack(piece)))
        return found

    def drop_first(self, count: int) -> None:
        """Forget the first ``count`` rows; the rest are loose again."""
        rest = self.rows[count:]
        self._pieces, self._loose, self._count = {}, [rest], len(rest)


class _Packed(msgspec.Struct, array_like=True):
    n: int
    numeric: bytes
    categorical: list[list[str | None]]
    score: bytes
    label: bytes
    time: bytes
    received: bytes
    key: bytes


def pack(rows: Rows) -> bytes:
    """``rows`` as bytes."""
    floats = {name: getattr(rows, name).astype(np.float32).tobytes() for name in _ENDS}
    whole = {name: getattr(rows, name).tobytes() for name in ("time", "received", "key")}
    return msgspec.msgpack.encode(
        _Packed(len(rows), categorical=rows.categorical.T.tolist(), **floats, **whole)
    )


def unpack(value: bytes) -> Rows:
    """The rows that :func:`pack` made ``value`` of."""
    packed = msgspec.msgpack.decode(value, type=_Packed)
    n = packed.n
    categorical = np.empty((n, len(packed.categorical)), np.object_)
    for j, column in enumerate(packed.categorical):
        categorical[:, j] = column
    floats = {name: np.frombuffer(getattr(packed, name), np.float32).astype(np.float64) for name in _ENDS}
    floats["numeric"] = floats["numeric"].reshape(n, -1)
    return Rows(
        **floats,
        categorical=categorical,
        time=np.frombuffer(packed.time, np.int64),
        received=np.frombuffer(packed.received, np.int64),
        key=np.frombuffer(packed.key, np.uint64),
    )
