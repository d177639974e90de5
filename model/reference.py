"""The reference sample: decisions as they were when the model was trained, which the drift monitor compares with.

Drawn by :mod:`model.training` from the validation rows, scored by the model that goes live, carried by every bundle
(:mod:`model.bundle`), read by the monitor. A comparison is fair only if both sides were drawn alike, so the rule here is
the monitor's: of a user's decisions in a block of event time the first counts, and no other.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from model.bundle import AGAIN, REFERENCE, Bundle, BundleError, read_arrays
from model.features import Float32
from model.usecase import Drift

UNSEEN = (
    0.0005  # share in the sample below which a value has hardly ever been seen, as in :mod:`detectors.faults`
)
LEAST_OF_BLOCK = 50  # rows of a block that tell what is usual

if TYPE_CHECKING:  # with it come pyarrow and a second of start-up, for a type's name
    from model.examples import Examples


class Reference(msgspec.Struct, frozen=True, eq=False):
    """n decisions in order of time: ``numeric`` float32 [n, F], NaN for missing, and ``categorical`` [n, C].

    The latter are the strings themselves, None for missing. ``score`` float32 [n] is the probability that the bundle's
    own model gives, ``label`` float32 [n] is 0 or 1, ``time`` int64 [n] ms. The model was fitted to these rows, too, so
    its errors on them are a little smaller than on days that it has not seen.

    ``usual`` float32 [3, F + C] is how far single blocks of all that was trained on went, by column: the largest share of
    missing values, of one value among those present, and of values that the sample hardly has. What a block did then
    (a cohort of newcomers has no history) is no fault of the data now.
    """

    numeric: Float32
    categorical: NDArray[np.object_]
    score: Float32
    label: Float32
    time: NDArray[np.int64]
    usual: Float32

    def __len__(self) -> int:
        return len(self.score)


def sample(
    examples: Examples, score: Float32, policy: Drift, seed: int, history: Examples | None = None
) -> Reference:
    """Draw ``policy.reference`` of ``examples``, or as many as there are, with their ``score`` [n].

    ``history`` is all that the model learned from, for what is usual; None: the examples.

    A user's decisions of one ``policy.block`` (counted from 1970) are alike, so only the first of them takes part. Of
    what remains, every row has the same chance, and within that each user gives as few rows as possible: with rows laid
    out user by user, every k-th is taken (systematic sampling: Cochran, Sampling Techniques, 1977, chapter 8), so that no
    user gives more than its share rounded up. Each user's rows lie in an order that means nothing: in order of time every
    k-th could be a Monday.

    Taking those users first who gave least so far would leave fewer rows a user yet, and be wrong: it favours who comes
    rarely, and the monitor does not. On OULAD that put the mean of a feature off by 0.30 standard deviations, 8 times
    what the detectors forgive at 5000 rows; equal chances, by less than 0.01.

    Equal arguments give equal samples.
    """
    random = np.random.default_rng(seed)
    _, codes = np.unique(examples.user, return_inverse=True)
    user = random.permutation(codes.max(initial=-1) + 1)[codes]  # [n], in an order that means nothing
    block = examples.time // max(1, round(policy.block * 1000))
    order = np.lexsort((examples.time, user))
    first = np.ones(len(order), np.bool_)
    first[1:] = (np.diff(user[order]) != 0) | (np.diff(block[order]) != 0)
    rows = order[first]  # [m], one a user a block
    rows = rows[np.lexsort((random.permutation(len(rows)), user[rows]))]
    wanted = min(policy.reference, len(rows))
    start = random.integers(max(1, len(rows)))
    # in integers, so that the last one is inside whatever the sizes are
    taken = (np.arange(wanted) * len(rows) + start) // max(1, wanted)
    chosen = np.sort(rows[taken])
    return Reference(
        numeric=examples.numeric[chosen],
        categorical=examples.categories[chosen],
        score=score[chosen],
        label=examples.label[chosen],
        time=examples.time[chosen],
        usual=_usual(examples if history is None else history, examples[chosen], policy),
    )


def _usual(history: Examples, drawn: Examples, policy: Drift) -> Float32:
    block = history.time // max(1, round(policy.block * 1000))
    present = [~np.isnan(column) for column in history.numeric.T]
    present += [column != None for column in history.categories.T]  # noqa: E711 - element by element
    codes = [np.unique(column, return_inverse=True)[1] for column in history.numeric.T]
    codes += [np.unique(column, return_inverse=True)[1] for column in history.categorical.T]
    strange = [np.zeros(len(history), np.bool_) for _ in history.numeric.T]
    for new, old in zip(history.categorical.T, drawn.categorical.T, strict=True):
        counts = np.bincount(old, minlength=int(new.max(initial=0)) + 1)
        strange.append(counts[new] < UNSEEN * len(old))
    found = np.zeros((3, len(codes)), np.float32)
    for number in np.unique(block):
        rows = np.flatnonzero(block == number)
        if len(rows) < LEAST_OF_BLOCK:
            continue
        for column, here in enumerate(present):
            known = rows[here[rows]]
            shares = [1 - len(known) / len(rows), 0.0, 0.0]
            if len(known) >= LEAST_OF_BLOCK:
                shares[1] = np.bincount(codes[column][known]).max() / len(known)
                shares[2] = strange[column][known].mean()
            found[:, column] = np.maximum(found[:, column], shares)
    return found


def write(directory: Path, reference: Reference) -> None:
    """Write ``reference`` into the bundle that is being made in ``directory``.

    Strings go as their UTF-8 bytes, end to end, and their lengths: NumPy's own strings lose NULs at their end, and all
    of them take the room of the longest.
    """
    texts = [None if text is None else text.encode() for text in reference.categorical.ravel().tolist()]
    lengths = np.array([_MISSING if text is None else len(text) for text in texts], np.int32)
    np.savez_compressed(
        directory / REFERENCE,
        numeric=reference.numeric,
        text=np.frombuffer(b"".join(text for text in texts if text), np.uint8),
        lengths=lengths.reshape(reference.categorical.shape),  # [n, C], bytes
        score=reference.score,
        label=reference.label,
        time=reference.time,
        usual=reference.usual,
    )


def read(bundle: Bundle) -> Reference:
    """The reference sample of ``bundle``, checked against its spec; raises :class:`BundleError`."""
    path = bundle.directory / REFERENCE
    numeric, text, lengths, score, label, time, usual = read_arrays(path, _WHAT, _ARRAYS)
    n = max(1, len(time)) if time.ndim else 1
    f, c = len(bundle.spec.numeric), len(bundle.spec.categorical)
    shapes = ((n, f), (text.size,), (n, c), (n,), (n,), (n,), (3, f + c))
    found = dict(zip(_ARRAYS, (numeric, text, lengths, score, label, time, usual), strict=True))
    for (name, array), kind, shape in zip(found.items(), _KINDS, shapes, strict=True):
        if array.dtype != kind or array.shape != shape:
            raise BundleError(
                f"{path}: `{name}` of the {_WHAT} is {np.dtype(kind)} {list(shape)}, got {array.dtype} "
                f"{list(array.shape)}; {AGAIN}"
            )
    for name, good, rule in (
        ("score", (score >= 0) & (score <= 1), "a probability"),
        ("label", (label == 0) | (label == 1), "0 or 1"),
    ):
        if not good.all():
            row = int(np.argmin(good))
            raise BundleError(
                f"{path}: `{name}` of the {_WHAT} is {rule}, got {found[name][row]} in row {row}; {AGAIN}"
            )
    return Reference(numeric, _strings(path, text, lengths), score, label, time, usual)


_WHAT = "reference sample"
_ARRAYS = ("numeric", "text", "lengths", "score", "label", "time", "usual")
_KINDS = (np.float32, np.uint8, np.int32, np.float32, np.float32, np.int64, np.float32)
_MISSING = -1  # the length of what is not there; an empty string is, and has 0


def _strings(path: Path, text: NDArray[np.uint8], lengths: NDArray[np.int32]) -> NDArray[np.object_]:
    """The strings [n, C] of so many bytes in ``text``."""
    ends = np.cumsum(np.maximum(lengths, 0), dtype=np.int64)
    total = int(ends[-1]) if len(ends) else 0
    if total != len(text) or (lengths < _MISSING).any():
        raise BundleError(
            f"{path}: categories of the {_WHAT} are as long together as their text, got {total} and {len(text)} bytes; "
            f"{AGAIN}"
        )
    content, begin = text.tobytes(), 0
    strings: list[Any] = []
    try:
        for length, end in zip(lengths.ravel().tolist(), ends.tolist(), strict=True):
            strings.append(None if length == _MISSING else content[begin:end].decode())
            begin = end
    except UnicodeDecodeError as error:
        raise BundleError(f"{path}: categories of the {_WHAT} are UTF-8: {error}; {AGAIN}") from error
    made = np.empty(lengths.size, np.object_)
    made[:] = strings
    return made.reshape(lengths.shape)
