"""alibi-detect's detectors as witnesses: statistical tests of window against reference. Only this module knows it.

alibi-detect stands under the Business Source License 1.1: using it in production needs Seldon's licence. So it is an
extra, and whoever asks for these witnesses has chosen to install it. It is imported when one is asked first: 7 s and
250 MB, once a process. :mod:`detectors.witnesses` calls this.

A test's p is over all of its columns, by Bonferroni; below .05 is drift. Missing values: ``ks`` and ``cvm`` leave them
out, column by column, because they are about the values; for ``tabular`` missing is the smallest number, so that more
or fewer of them are seen as well; ``classifier`` gets the reference's median and a column that says so; for every test of
a categorical column missing is one more category.
"""

from __future__ import annotations

import functools
import importlib
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors.rows import Float64, Rows, Schema
from detectors.streaming import mistaken
from detectors.verdict import Testimony

ON = {
    "ks": "features",
    "cvm": "features",
    "chi2": "features",
    "tabular": "features",
    "classifier": "features",
    "chi2_label": "label",
    "fet_label": "label",
    "ks_score": "score",
    "cvm_online": "score",
    "fet_online": "loss",
}

ALPHA = 0.05
ENOUGH = 50  # values, fewer of which in reference or window tell nothing
ROWS = 10_000  # of each that a test looks at: 10 ms a column
CLASSIFIER_ROWS = 2000  # of each that the classifier learns from or is tested on: half a second
CATEGORIES = 50  # of a column; the rarer ones are taken together
EXPECTED = (
    5  # rows of a category in the smaller sample, below which chi-squared is no longer near (Cochran 1954)
)

# alibi-detect gives p in single precision, where less than this is 0; its Cramér-von Mises sums a series to 1e-7.
FLOOR, CVM_FLOOR = float(np.finfo(np.float32).tiny), 1e-6

# The online tests simulate their thresholds, at a cost that grows with all of these: 8 s.
ONLINE_REFERENCE = 200
ONLINE_ROWS = (
    200  # of the window, evenly spaced: 1 window in 20 without drift exceeds thresholds for that run
)
ONLINE_WINDOWS = [20, 60]
ONLINE_RUN = 4000
ONLINE_SIMULATIONS = 4  # a value of the run length: the threshold is the quantile that 4 of them exceed

_asking = threading.RLock()  # the global random state, and the import, are one at a time


class TooLittleError(Exception):
    """There is too little to ask about."""


def ask(
    name: str, events_between_false_alarms: int, reference: Rows, window: Rows, schema: Schema
) -> Testimony:
    """What the test ``name`` says of the window against the reference; numpy's global random state stays as it is."""
    with _asking, _seeded():
        try:
            return _TESTS[name](name, reference, window, schema, events_between_false_alarms)
        except TooLittleError as reason:
            return Testimony(name, ON[name], None, note=str(reason))


@contextmanager
def _seeded() -> Iterator[None]:
    """alibi-detect draws from numpy's global random state: one seed for each call, and the state as before after it."""
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002


class _Backends:
    """An import finder that hides TensorFlow and PyTorch from the thread that made it.

    Where TensorFlow is installed and tensorflow-probability is not, ``import alibi_detect`` fails: it evaluates
    ``Union[…]`` of stand-ins for what is missing, in ``saving/_tensorflow``. Where both are, it takes 10 s and 600 MB
    for detectors that are not asked here. Hidden from the importing thread alone, TensorFlow stays what it is to
    everybody else, imported already or not.
    """

    def __init__(self) -> None:
        self.thread = threading.get_ident()

    def find_spec(
        self, name: str, _path: object = None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        backend = name.partition(".")[0]
        if name.startswith("alibi_detect.saving._tensorflow."):
            backend = "tensorflow"
        if threading.get_ident() == self.thread and backend in (
            "tensorflow",
            "tensorflow_probability",
            "torch",
            "pykeops",
        ):
            raise ModuleNotFoundError(f"{name} is hidden from alibi_detect", name=backend)
        return None


@functools.cache
def _alibi() -> Any:
    """``alibi_detect.cd``."""
    # alibi-detect imports transformers, which looks around for TensorFlow and remembers: it is to see things as they are.
    transformers = importlib.import_module("transformers")
    _ = transformers.PreTrainedTokenizerBase, transformers.AutoTokenizer
    hidden = _Backends()
    sys.meta_path.insert(0, hidden)
    try:
        return importlib.import_module("alibi_detect.cd")
    finally:
        sys.meta_path.remove(hidden)


def _numeric(name: str, reference: Rows, window: Rows, schema: Schema, _events: int) -> Testimony:
    """Massey, "The Kolmogorov-Smirnov test for goodness of fit", JASA 1951; Anderson, on Cramér-von Mises, 1962."""
    detector = _alibi().KSDrift if name == "ks" else _alibi().CVMDrift
    reference, window = _thin(reference, ROWS), _thin(window, ROWS)
    found = {}
    for index, column in enumerate(schema.numeric):
        before, after = (rows.numeric[:, index] for rows in (reference, window))
        before, after = before[~np.isnan(before)], after[~np.isnan(after)]
        if min(len(before), len(after)) >= ENOUGH:
            found[column] = _p(detector(before[:, None]), after[:, None])
    if not found:
        raise TooLittleError(f"no numeric column has {ENOUGH} values in both reference and window")
    return _tested(name, found, CVM_FLOOR if name == "cvm" else FLOOR)


def _categorical(name: str, reference: Rows, window: Rows, schema: Schema, _events: int) -> Testimony:
    """Pearson's chi-squared test of each categorical column."""
    reference, window = _enough(_thin(reference, ROWS)), _enough(_thin(window, ROWS))
    columns = {column: _codes(reference, window, index) for index, column in enumerate(schema.categorical)}
    columns = {column: codes for column, codes in columns.items() if np.ptp(np.concatenate(codes)) > 0}
    if not columns:
        raise TooLittleError("no categorical column has two categories that are frequent enough")
    return _tested(
        name,
        {
            column: _p(_alibi().ChiSquareDrift(before[:, None]), after[:, None])
            for column, (before, after) in columns.items()
        },
    )


def _tabular(name: str, reference: Rows, window: Rows, schema: Schema, _events: int) -> Testimony:
    """Kolmogorov-Smirnov on numeric and chi-squared on categorical columns, all together."""
    reference, window = _enough(_thin(reference, ROWS)), _enough(_thin(window, ROWS))
    numeric = np.concatenate([reference.numeric, window.numeric])
    numeric = np.where(np.isnan(numeric), 2 * np.nanmin(numeric, initial=0) - 1, numeric)
    codes = [np.concatenate(_codes(reference, window, index)) for index in range(len(schema.categorical))]
    both = np.column_stack([numeric, *codes])
    names = np.array((*schema.numeric, *schema.categorical))
    told = np.ptp(both, axis=0) > 0  # chi-squared cannot be asked of a constant
    if not told.any():
        raise TooLittleError("every column is constant")
    both, categorical = both[:, told], np.flatnonzero(np.flatnonzero(told) >= len(schema.numeric))
    detector = _alibi().TabularDrift(
        both[: len(reference)], categories_per_feature=dict.fromkeys(categorical.tolist())
    )
    values, _ = detector.score(both[len(reference) :])
    return _tested(name, dict(zip(names[told].tolist(), values.tolist(), strict=True)))


def _classifier(name: str, reference: Rows, window: Rows, schema: Schema, _events: int) -> Testimony:
    """Lopez-Paz and Oquab, "Revisiting classifier two-sample tests", ICLR 2017.

    Trees learn to tell window from reference by one half of the rows; the other half is the test. Folds would use all
    rows twice, but what they predict hangs together and p comes out too small.
    """
    pipeline, trees = importlib.import_module("sklearn.pipeline"), importlib.import_module("sklearn.ensemble")
    reference, window = (
        _enough(_thin(reference, CLASSIFIER_ROWS), 2 * ENOUGH),
        _enough(_thin(window, CLASSIFIER_ROWS), 2 * ENOUGH),
    )
    numeric = np.concatenate([reference.numeric, window.numeric])
    missing = np.isnan(numeric)
    median = np.array([np.median(_present(column)) for column in reference.numeric.T])
    parts = [np.where(missing, median, numeric), missing[:, missing.any(axis=0)]]
    for index in range(len(schema.categorical)):
        codes = np.concatenate(_codes(reference, window, index))
        parts.append(codes[:, None] == np.unique(codes))
    features = np.column_stack(parts).astype(np.float32)
    # A pipeline, because alibi-detect logs a warning about each model that can be fitted on.
    model = pipeline.Pipeline(
        [("trees", trees.ExtraTreesClassifier(50, min_samples_leaf=10, random_state=0, n_jobs=1))]
    )
    detector = _alibi().ClassifierDrift(features[: len(reference)], model, backend="sklearn", train_size=0.5)
    found = detector.predict(features[len(reference) :], return_probs=False, return_model=False)["data"]
    return _tested(name, {"": float(found["p_val"])})


def _label(name: str, reference: Rows, window: Rows, _schema: Schema, _events: int) -> Testimony:
    """Chi-squared or Fisher's exact test of the share of positive labels."""
    before, after = _known(_thin(reference, ROWS)).label, _known(_thin(window, ROWS)).label
    if len(np.unique(np.concatenate([before, after]))) < 2:
        raise TooLittleError("every label is the same")
    if name == "fet_label":
        detector = _alibi().FETDrift(before[:, None], alternative="two-sided")
    else:
        detector = _alibi().ChiSquareDrift(before[:, None])
    return _tested(name, {"label": _p(detector, after[:, None])})


def _score(name: str, reference: Rows, window: Rows, _schema: Schema, _events: int) -> Testimony:
    """Kolmogorov-Smirnov on the scores: Rabanser et al., "Failing loudly", NeurIPS 2019, found it the best of many."""
    reference, window = _enough(_thin(reference, ROWS)), _enough(_thin(window, ROWS))
    return _tested(name, {"score": _p(_alibi().KSDrift(reference.score[:, None]), window.score[:, None])})


def _online(name: str, reference: Rows, window: Rows, _schema: Schema, events: int) -> Testimony:
    """Ross, Tasoulis and Adams, "Nonparametric monitoring of data streams", Technometrics 2011 and 2012.

    Fisher's looks for more mistakes only, Cramér-von Mises for any other law of the score.
    """
    rows = np.flatnonzero(~np.isnan(window.label)) if name == "fet_online" else np.arange(len(window))
    rows = rows[_spaced(len(rows), ONLINE_ROWS)]
    run = min(events, ONLINE_RUN)
    if name == "fet_online":
        mistakes = _mistakes(_thin(_known(reference), ONLINE_REFERENCE))
        values = _mistakes(_known(window[rows])).tolist()
        if len(np.unique(mistakes)) < 2:
            raise TooLittleError("the reference's scores are all right or all wrong")
        detector = copy(_fet_online(len(mistakes), int(mistakes.sum()), run))
    else:
        scores = _enough(_thin(reference, ONLINE_REFERENCE)).score
        values = _enough(window[rows]).score.tolist()
        detector = copy(_cvm_online(len(scores), run))
        detector.x_ref = scores[:, None]  # its thresholds hold for every reference of that length
        detector._configure_ref()  # noqa: SLF001
    detector.reset_state()
    alarms = (row for row, value in zip(rows, values, strict=True) if _alarms(detector, value))
    first = next(alarms, None)
    note = f"a false alarm every {run} values, of which it sees {len(rows)} evenly spaced"
    if run < events:
        note += f"; thresholds for {events} would take too long"
    return Testimony(
        name, ON[name], first is not None, statistic=None if first is None else float(first), note=note
    )


# A call works on a copy whose history is its own and is thrown away: alibi-detect keeps all that a detector ever saw.
@functools.lru_cache(maxsize=2)
def _cvm_online(length: int, run: int) -> Any:
    """A detector for references of ``length`` values; its thresholds depend on nothing else, being of ranks."""
    return _alibi().CVMDriftOnline(np.arange(float(length)), run, ONLINE_WINDOWS, **_simulations(run))


@functools.lru_cache(maxsize=2)
def _fet_online(length: int, positive: int, run: int) -> Any:
    """A detector for references with so many ones among ``length`` values; nothing else of them matters."""
    reference = (np.arange(length) < positive).astype(np.int64)
    return _alibi().FETDriftOnline(reference, run, ONLINE_WINDOWS, **_simulations(run))


def _simulations(run: int) -> dict[str, Any]:
    return {"n_bootstraps": ONLINE_SIMULATIONS * run, "verbose": False}


def _alarms(detector: Any, value: float) -> bool:
    return bool(detector.predict(value)["data"]["is_drift"])


def _p(detector: Any, window: NDArray[Any]) -> float:
    values, _ = detector.score(window)
    return float(values[0])


def _tested(name: str, found: dict[str, float], floor: float = FLOOR) -> Testimony:
    """The testimony of a test of several columns, p of each given."""
    corrected = {column: min(1.0, len(found) * max(p, floor)) for column, p in found.items()}
    columns = tuple(column for column, p in corrected.items() if column and p < ALPHA)
    p = min(corrected.values())
    return Testimony(name, ON[name], p < ALPHA, p=p, columns=columns)


def _spaced(length: int, most: int) -> NDArray[Any]:
    return np.arange(length) if length <= most else np.linspace(0, length - 1, most).astype(np.int64)


def _thin(rows: Rows, most: int) -> Rows:
    return rows[_spaced(len(rows), most)]


def _enough(rows: Rows, least: int = ENOUGH) -> Rows:
    if len(rows) < least:
        raise TooLittleError(f"{len(rows)} rows, of which {least} each are needed")
    return rows


def _known(rows: Rows) -> Rows:
    known = rows[~np.isnan(rows.label)]
    if len(known) < ENOUGH:
        raise TooLittleError(f"{len(known)} labels, of which {ENOUGH} each are needed")
    return known


def _mistakes(rows: Rows) -> NDArray[np.int64]:
    return mistaken(rows.score, rows.label).astype(np.int64)


def _present(column: Float64) -> Float64:
    present = column[~np.isnan(column)]
    return present if len(present) else np.zeros(1)


def _codes(reference: Rows, window: Rows, column: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """A categorical column of both as numbers: the frequent categories from 1 on, all others 0, missing a category."""
    both = np.concatenate([reference.categorical[:, column], window.categorical[:, column]])
    texts = np.array(["\0" if value is None else str(value) for value in both])
    categories, codes, counts = np.unique(texts, return_inverse=True, return_counts=True)
    least = EXPECTED * len(both) / min(len(reference), len(window))
    frequent = [code for code in np.argsort(-counts, kind="stable")[:CATEGORIES] if counts[code] >= least]
    number = np.zeros(len(categories), np.int64)
    number[frequent] = np.arange(1, len(frequent) + 1)
    numbers = number[codes]
    return numbers[: len(reference)], numbers[len(reference) :]


_TESTS: dict[str, Callable[[str, Rows, Rows, Schema, int], Testimony]] = {
    "ks": _numeric,
    "cvm": _numeric,
    "chi2": _categorical,
    "tabular": _tabular,
    "classifier": _classifier,
    "chi2_label": _label,
    "fet_label": _label,
    "ks_score": _score,
    "cvm_online": _online,
    "fet_online": _online,
}
