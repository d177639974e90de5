"""The data of the drift protocol: a CSV, or a stream that river generates.

Of what river brings along without a download nothing binary has 20,000 rows, so it is a generator: random radial basis
functions, because all of its features are numbers (Agrawal's are partly codes of categories, which a median and a
permutation of columns mean nothing to) and its classes overlap.
"""

from __future__ import annotations

import csv
import itertools
import math
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray
from river.datasets.synth import RandomRBF

from detectors.rows import Float64

GENERATED = 40_000  # rows
LEAST = 4000  # rows: a tenth of them become the reference


class DataError(ValueError):
    """The CSV cannot be used: the file, the line, the rule and what came."""


class Data(msgspec.Struct, frozen=True, eq=False):
    """A binary classification problem: ``features`` [n, F] and ``label`` [n], 0 or 1."""

    name: str
    columns: tuple[str, ...]
    features: Float64
    label: NDArray[np.int64]


def read(path: Path) -> Data:
    """The data in the CSV at ``path``: a header, numbers, and in the last column the class; empty is missing."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            lines = csv.reader(file)
            header = next(lines, [])
            if len(header) < 2:
                raise DataError(f"{path}:1: the header names the features and, last, the class; got {header}")
            rows = [_numbers(path, lines.line_num, header, line) for line in lines if line]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: a CSV in UTF-8 is needed: {error}") from error
    if len(rows) < LEAST:
        raise DataError(f"{path}: {LEAST} rows are the least of which a drift can be told; got {len(rows)}")
    values = np.array(rows)
    classes = np.unique(values[:, -1])
    if len(classes) != 2 or np.isnan(classes).any():
        raise DataError(
            f"{path}: the last column, `{header[-1]}`, is a binary class: two values in all; got {_few(classes)}"
        )
    return Data(path.stem, tuple(header[:-1]), values[:, :-1], (values[:, -1] == classes[1]).astype(np.int64))


def _numbers(path: Path, line: int, header: list[str], cells: list[str]) -> list[float]:
    if len(cells) != len(header):
        raise DataError(
            f"{path}:{line}: every line has the {len(header)} columns of the header; got {len(cells)}"
        )
    found = []
    for name, cell in zip(header, cells, strict=True):
        try:
            value = float(cell) if cell.strip() else math.nan
        except ValueError as error:
            raise DataError(f"{path}:{line}: `{name}` is a number; got {cell!r}") from error
        if math.isinf(value):
            raise DataError(f"{path}:{line}: `{name}` is a finite number; got {cell!r}")
        found.append(value)
    return found


def _few(classes: Float64) -> str:
    shown = ", ".join(f"{each:g}" for each in classes[:5])
    return f"{len(classes)}: {shown}" + (", …" if len(classes) > 5 else "")


def generated(rows: int = GENERATED) -> Data:
    """``rows`` of river's RandomRBF: ten features, fifty centres, two classes."""
    found = list(itertools.islice(RandomRBF(seed_model=1, seed_sample=1, n_features=10), rows))
    columns = tuple(f"x{name}" for name in found[0][0])
    features = np.array([list(x.values()) for x, _ in found])
    return Data("RandomRBF", columns, features, np.array([y for _, y in found], np.int64))
