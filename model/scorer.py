"""Scoring with LiteRT: feature rows in, probabilities out. Called by workers, the monitor, the gate and the registry.

Nothing here imports TensorFlow, directly or through another module. The row of a decision gets the same bits in
whatever batch it is scored, so that a worker that replays after a crash repeats its decisions. This rests on
LiteRT's default kernels (XNNPACK), each of which sums in one order whatever the batch size; its plain kernels
change bits between batches of 1 and of more. Loading checks it on the CPU at hand; CPUs of two kinds may differ.
"""

from __future__ import annotations

import functools
import threading
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from model.bundle import MODEL, Bundle, BundleError, Fault, Golden, read, read_golden, verify
from model.features import FeatureSpec, Float32, Int32

TOLERANCE = 1e-5  # of a golden score; LiteRT and Keras differ by up to 4e-7
# What one more call costs, in rows: about 7 µs beside 0.3 (15 features) to 2 µs (900 000 parameters) a row.
CALL = 16


class _Interpreter(Protocol):
    """The part of LiteRT's untyped interpreter that is used here."""

    def get_input_details(self) -> list[dict[str, Any]]: ...
    def get_output_details(self) -> list[dict[str, Any]]: ...
    def resize_tensor_input(self, input_index: int, tensor_size: list[int]) -> None: ...
    def allocate_tensors(self) -> None: ...
    def set_tensor(self, tensor_index: int, value: NDArray[Any]) -> None: ...
    def get_tensor(self, tensor_index: int) -> Float32: ...
    def invoke(self) -> None: ...


class LiteRTScorer:
    """One version of the model, ready to score. Get one from :meth:`load`; replace it whole to go to another version.

    Threads may share one: a call waits for the one before it.
    """

    def __init__(self, bundle: Bundle, buckets: dict[int, _Bucket]) -> None:
        self.bundle = bundle
        self.version: str = bundle.manifest.version
        self.spec: FeatureSpec = bundle.spec
        self._buckets = buckets
        self._sizes = tuple(buckets)
        self._limits = np.array([column.buckets for column in bundle.spec.categorical], np.uint32)  # [C]
        self._one_at_a_time = threading.Lock()

    @classmethod
    def load(cls, directory: Path) -> LiteRTScorer:
        """Load, warm and check the bundle at ``directory``: 10 to 30 ms, so off the scoring path.

        Raises :class:`~model.bundle.BundleError` unless every file is what the manifest says, the golden rows get
        the scores that Keras gave them, and each row gets the same bits in every bucket.
        """
        bundle = read(directory)
        verify(bundle)
        # bytes rather than a mapped file: five interpreters share them, and no later change on disk can reach them
        content = (directory / MODEL).read_bytes()
        try:
            scorer = cls(
                bundle, {size: _Bucket(content, size, bundle.spec) for size in bundle.manifest.buckets}
            )
        except (ValueError, RuntimeError) as error:
            raise BundleError(
                f"{directory / MODEL}: LiteRT cannot load it: {error}; train a new version"
            ) from error
        scorer._check(read_golden(bundle))
        return scorer

    def score(self, numeric: Float32, categorical: Int32) -> Float32:
        """Probabilities float32 [n] of the rows ``numeric`` float32 [n, F] and ``categorical`` int32 [n, C].

        Raises :class:`ValueError` for a wrong shape or type, or for an id that its column does not have: inside
        LiteRT one such id would fail the batch without saying which.
        """
        n = self._validate(numeric, categorical)
        scores = np.empty(n, np.float32)
        start = 0
        with self._one_at_a_time:
            for size in split(n, self._sizes):
                stop = min(start + size, n)
                self._buckets[size].score(numeric[start:stop], categorical[start:stop], scores[start:stop])
                start = stop
        return scores

    def _validate(self, numeric: Float32, categorical: Int32) -> int:
        n = len(numeric)
        for name, rows, dtype, columns in (
            ("numeric", numeric, np.float32, len(self.spec.numeric)),
            ("categorical", categorical, np.int32, len(self.spec.categorical)),
        ):
            if rows.shape != (n, columns) or rows.dtype != dtype:
                raise ValueError(
                    f"`{name}` is {dtype.__name__} [{n}, {columns}], got {rows.dtype} {list(rows.shape)}; "
                    f"lay features out by the spec of model {self.version}"
                )
        # a negative id reads as a huge unsigned one, so one comparison finds both ends
        if len(self._limits) and (beyond := categorical.view(np.uint32) >= self._limits).any():
            row, column = np.argwhere(beyond)[0].tolist()
            name, buckets = self.spec.categorical[column].name, self.spec.categorical[column].buckets
            raise ValueError(
                f"ids of `{name}` are 0 to {buckets - 1}, got {categorical[row, column]} in row {row}; "
                f"hash categories by the spec of model {self.version}"
            )
        return n

    def _check(self, golden: Golden) -> None:
        where = self.bundle.directory
        try:
            scores = self.score(golden.numeric, golden.categorical)  # [n]
        except ValueError as error:
            raise BundleError(
                f"{where}: golden rows do not fit the spec: {error}; train a new version"
            ) from error
        if not np.isfinite(scores).all():
            raise BundleError(
                f"{where}: scores are numbers, got {int(np.sum(~np.isfinite(scores)))} of {len(scores)} golden rows without; "
                "train a new version",
                Fault.NOT_FINITE,
            )
        off = np.abs(scores - golden.score)
        wrong = int(np.sum(~(off <= TOLERANCE)))  # NaN is wrong, too
        if wrong:
            raise BundleError(
                f"{where}: golden rows score within {TOLERANCE} of Keras, got {wrong} of {len(off)} further off "
                f"(largest difference {np.max(off):.2g}); train a new version",
                Fault.GOLDEN,
            )
        for size, bucket in self._buckets.items():
            again = np.empty_like(scores)
            for start in range(0, len(scores), size):
                rows = slice(start, start + size)
                bucket.score(golden.numeric[rows], golden.categorical[rows], again[rows])
            if not np.array_equal(scores, again):
                raise BundleError(
                    f"{where}: a row gets the same bits in every batch, got {int(np.sum(scores != again))} of {len(again)} "
                    f"golden rows different in batches of {size} on this CPU; train a version with one bucket size",
                    Fault.BATCHES,
                )


class _Bucket:
    """An interpreter for batches of exactly ``size`` rows; fewer are padded with whatever rows came before."""

    def __init__(self, content: bytes, size: int, spec: FeatureSpec) -> None:
        self._interpreter = cast(_Interpreter, Interpreter(model_content=content, num_threads=1))
        self._size = size
        self._inputs: list[tuple[bool, int, NDArray[Any]]] = []  # is it numeric, its index, its padded rows
        for detail in self._interpreter.get_input_details():
            numeric = detail["dtype"] is np.float32
            columns = len(spec.numeric) if numeric else len(spec.categorical)
            self._interpreter.resize_tensor_input(detail["index"], [size, columns])
            padded = np.zeros((size, columns), np.float32 if numeric else np.int32)
            self._inputs.append((numeric, detail["index"], padded))
        self._interpreter.allocate_tensors()
        self._output: int = self._interpreter.get_output_details()[0]["index"]
        warm = (
            np.zeros((size, len(spec.numeric)), np.float32),
            np.zeros((size, len(spec.categorical)), np.int32),
        )
        self.score(*warm, np.empty(size, np.float32))

    def score(self, numeric: Float32, categorical: Int32, scores: Float32) -> None:
        """Write the scores [k] of k ≤ size rows into ``scores``."""
        k = len(scores)
        for is_numeric, index, padded in self._inputs:
            rows = numeric if is_numeric else categorical
            if k < self._size:
                padded[:k] = rows
                rows = padded
            self._interpreter.set_tensor(index, rows)
        self._interpreter.invoke()
        scores[:] = self._interpreter.get_tensor(self._output)[:k, 0]


@functools.lru_cache(maxsize=4096)
def split(n: int, sizes: tuple[int, ...]) -> tuple[int, ...]:
    """The buckets, of ``sizes`` in rising order, to score ``n`` rows in; only the last can be padded.

    The largest while there are rows for it, then the cheaper of padding up and of filling a smaller one first.

    >>> split(2500, (1, 16, 64, 256, 1024))
    (1024, 1024, 256, 256)
    >>> split(300, (1, 16, 64, 256, 1024))
    (256, 64)
    """
    full, rest = divmod(n, sizes[-1])
    largest = (sizes[-1],) * full
    if rest == 0:
        return largest
    plans: list[tuple[int, ...]] = []
    for size in sizes:
        if size >= rest:
            plans.append((size,))
            break
        plans.append((size,) * (rest // size) + split(rest % size, sizes))
    return largest + min(plans, key=lambda plan: (sum(plan) + CALL * len(plan), len(plan)))
