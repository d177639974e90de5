"""The published OULAD tables, read into columns; called by `convert`.

A directory holds six tables and `studentVle/MODULE_PRESENTATION.parquet`. Numeric columns may be integers, as
in `examples/oulad/data`, or the doubles of the original files.
"""

import datetime as dt
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

Columns: TypeAlias = dict[str, npt.NDArray[Any]]
"""A table: numbers as float64 with NaN for null, text as objects."""

RUN = ("code_module", "code_presentation")
USED = {
    "assessments": (*RUN, "id_assessment", "assessment_type", "date", "weight"),
    "courses": (*RUN, "module_presentation_length"),
    "studentAssessment": ("id_assessment", "id_student", "date_submitted", "is_banked", "score"),
    "studentInfo": (*RUN, "id_student", "final_result"),
    "studentRegistration": (*RUN, "id_student", "date_registration", "date_unregistration"),
    "studentVle": ("id_student", "id_site", "date", "sum_click"),
    "vle": (*RUN, "id_site", "activity_type"),
}

STARTS = {"B": 2, "J": 10}  # month of a presentation's first day


@dataclass(frozen=True, kw_only=True)
class Presentation:
    """One run of a module, for example BBB 2013J."""

    module: str
    code: str
    length: int
    """Days from the start to the last day."""

    @property
    def start(self) -> int:
        """The first day, in days since the epoch."""
        year, letter = self.code[:4], self.code[4:]
        if not year.isdigit() or letter not in STARTS:
            raise ValueError(f"a presentation is a year and B or J, not {self.code!r} (module {self.module})")
        return (dt.date(int(year), STARTS[letter], 1) - dt.date(1970, 1, 1)).days


def read(directory: Path, name: str, presentation: Presentation | None = None) -> Columns:
    """Read the columns of a table that events need; `presentation` says which of the studentVle files."""
    part = f"{name}/{presentation.module}_{presentation.code}" if presentation else name
    table = pq.read_table(directory / f"{part}.parquet", columns=list(USED[name]))
    columns: Columns = {}
    for field, column in zip(table.column_names, table.columns, strict=True):
        number = pa.types.is_floating(column.type) or pa.types.is_integer(column.type)
        columns[field] = column.cast(pa.float64() if number else pa.string()).to_numpy()
    return columns


def rows_of(presentation: Presentation, table: Columns) -> Columns:
    """Return the rows of one presentation."""
    rows = (table["code_module"] == presentation.module) & (table["code_presentation"] == presentation.code)
    return {name: column[rows] for name, column in table.items()}


def choose(
    courses: Columns, modules: Collection[str] | None, presentations: Collection[str] | None
) -> list[Presentation]:
    """Return the presentations asked for, by module and time."""
    columns = (courses["code_module"], courses["code_presentation"])
    for asked, there in zip((modules, presentations), columns, strict=True):
        if unknown := sorted(set(asked or ()) - set(there)):
            raise ValueError(f"no {', '.join(unknown)} here; there are {', '.join(sorted(set(there)))}")
    return [
        Presentation(module=module, code=code, length=int(length))
        for module, code, length in sorted(zip(*columns, courses["module_presentation_length"], strict=True))
        if (modules is None or module in modules) and (presentations is None or code in presentations)
    ]
