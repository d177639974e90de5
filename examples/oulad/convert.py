"""Turn the published OULAD tables into Eddyline events, in order of event time.

The demo and the replay call `batches` or `events`; `python -m examples.oulad.convert DIR OUT.jsonl` writes a
file.

The data know the day, not the hour. Days count from the presentation's start, 00:00 UTC on 1 February (B) or
1 October (J) of its year. A day's events are put at fixed hours:

| type           | hour | one for each                         | item       | value  | context           |
| -------------- | ---- | ------------------------------------ | ---------- | ------ | ----------------- |
| `registered`   | 00   | registration that has a day          |            |        | presentation      |
| `unregistered` | 00   | registration that was withdrawn      |            |        | presentation      |
| `due`          | 00   | decision: see the function `due`     | assessment |        | kind, weight, day |
| `submitted`    | 00   | row of studentAssessment, not banked | assessment | score  | kind              |
| `banked`       | 00   | banked row of studentAssessment      | assessment | score  | kind              |
| `page`         | 12   | row of studentVle                    | site       | clicks | activity          |
| `completed`    | 23   | Pass or Distinction, on the last day |            |        | result            |

Every context has the module too. Events of one instant keep the order of that table, then module, presentation
and source row. So a decision sees the pages and submissions of earlier days only, and a submission 14 days
after it is within 14 days.

Not every row is what it seems:

- An exam is no decision: it is sat, not submitted online. Of the nine exams with a date in six of the modules,
  six have no row in studentAssessment at all. Rows that are there become `submitted` like any other.
- A banked result is carried over from an earlier presentation: nobody did anything on its day, -1 throughout.
  So it is no `submitted`, and it neither is an outcome nor stops a decision.
- A registration without a day is dropped: it has no `registered` and no decisions. The student's other events
  stay, a withdrawal that has a day among them. 34 of the 24,831 registrations of six modules are like that.

Ids say where an event comes from: `BBB-2013B-p-17` is row 17 (from 0) of studentVle/BBB_2013B, and
`d-14984-25107` is assessment 14984 falling due for student 25107.
"""

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import click
import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from examples.oulad.tables import Columns, Presentation, choose, read, rows_of

HOURS = {
    "registered": 0,
    "unregistered": 0,
    "due": 0,
    "submitted": 0,
    "banked": 0,
    "page": 12,
    "completed": 23,
}
TYPES = tuple(HOURS)  # an event's kind is its place here, which is also its order within an instant
DAYS_AHEAD = 7  # a decision is taken this long before the due date

BATCH = 65_536  # events: about 10 MB of JSON
HOUR_MS = 3_600_000

# One event before encoding, 29 bytes. head, item, value and context are numbers of pieces of JSON (`Pieces`).
EVENT = np.dtype(
    {
        "names": ["hour", "kind", "head", "serial", "user", "item", "value", "context"],
        "formats": ["i4", "u1", "i4", "i4", "i4", "i4", "i4", "i4"],
    }
)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """A run of consecutive events, at most `BATCH` of them."""

    lines: bytes
    """One JSON object a line, each with its line feed."""
    users: npt.NDArray[np.int32]
    """The student of each event: the key it is produced with."""
    times: npt.NDArray[np.int64]
    """When each event happened, in milliseconds since the epoch; never decreasing."""
    kinds: npt.NDArray[np.uint8]
    """Each event's type, as an index into `TYPES`."""


class Pieces:
    """The distinct pieces of JSON that events are joined from, numbered as they come; number 0 is empty."""

    def __init__(self) -> None:
        self._numbers = {"": 0}

    def number(self, text: str) -> int:
        """Return the number of `text`, a new one if it has none."""
        return self._numbers.setdefault(text, len(self._numbers))

    def context(self, **fields: str | float) -> int:
        """Return the number of the context with these fields."""
        return self.number(f',"context":{msgspec.json.encode(fields).decode()}')

    def each(self, before: str, values: npt.NDArray[np.float64], after: str = "") -> npt.NDArray[np.int32]:
        """Return a piece for each value, `before` and `after` around it; the empty one where it is NaN."""
        distinct, places = _distinct(values)
        texts = (
            "" if math.isnan(value) else f"{before}{_plain(value)}{after}" for value in distinct.tolist()
        )
        return np.array([self.number(text) for text in texts], np.int32)[places]

    def array(self) -> pa.StringArray:
        """Return all pieces by number."""
        return pa.array(list(self._numbers), pa.string())


def batches(
    directory: Path, modules: Collection[str] | None = None, presentations: Collection[str] | None = None
) -> Iterator[Batch]:
    """Yield the events of `directory` in order of time, of these modules and presentations only (None: all).

    Raises ValueError for a module or presentation that `directory` does not have, and FileNotFoundError for a
    missing table; both before the first batch.
    """
    tables = {
        name: read(directory, name)
        for name in ("assessments", "studentAssessment", "studentInfo", "studentRegistration", "vle")
    }
    pieces = Pieces()
    parts: list[npt.NDArray[np.void]] = []
    for presentation in choose(read(directory, "courses"), modules, presentations):
        vle = read(directory, "studentVle", presentation)
        parts += _presentation(presentation, tables, vle, pieces)
    events = np.concatenate(parts) if parts else np.empty(0, EVENT)
    del parts
    order = np.argsort(events["hour"] * np.int32(len(TYPES)) + events["kind"], kind="stable")
    texts = pieces.array()
    for first in range(0, len(order), BATCH):
        yield _encode(events[order[first : first + BATCH]], texts)


def events(
    directory: Path, modules: Collection[str] | None = None, presentations: Collection[str] | None = None
) -> Iterator[list[bytes]]:
    """Yield what `batches` yields, as lists of encoded events."""
    for batch in batches(directory, modules, presentations):
        yield batch.lines.split(b"\n")[:-1]


def due(
    day: int,
    registered: npt.NDArray[np.float64],
    unregistered: npt.NDArray[np.float64],
    submitted: npt.NDArray[np.float64],
) -> npt.NDArray[np.bool_]:
    """Say for whom an assessment that is due on `day` is a decision, `DAYS_AHEAD` days before.

    For those who have registered by then, have not left by then, and have not submitted on an earlier day. A
    banked result is not a submission. The arrays hold days, one entry a student; NaN is never, so a registration
    without a day has no decision.

    >>> due(19, np.array([-20.0, 13.0]), np.array([np.nan, np.nan]), np.array([np.nan, np.nan])).tolist()
    [True, False]
    """
    decision = day - DAYS_AHEAD
    here: npt.NDArray[np.bool_] = (registered <= decision) & ~(unregistered <= decision)
    return here & ~(submitted < decision)


def _presentation(
    presentation: Presentation, tables: dict[str, Columns], vle: Columns, pieces: Pieces
) -> Iterator[npt.NDArray[np.void]]:
    """Yield the events of one presentation, a block of rows for each type or assessment."""
    start, module = presentation.start, presentation.module
    own = {name: rows_of(presentation, table) for name, table in tables.items() if "code_module" in table}
    registration = own["studentRegistration"]
    where = pieces.context(module=module, presentation=presentation.code)
    for kind, date in (("registered", "date_registration"), ("unregistered", "date_unregistration")):
        known = ~np.isnan(registration[date])
        yield _rows(
            kind,
            start + registration[date][known],
            registration["id_student"][known],
            pieces.number(f'{{"id":"{module}-{presentation.code}-{kind[0]}-'),
            context=where,
        )
    yield from _assessments(
        presentation, own["assessments"], registration, tables["studentAssessment"], pieces
    )
    yield _pages(presentation, vle, own["vle"], pieces)
    info = own["studentInfo"]
    for result in ("Pass", "Distinction"):
        yield _rows(
            "completed",
            start + presentation.length,
            info["id_student"][info["final_result"] == result],
            pieces.number(f'{{"id":"{module}-{presentation.code}-c-'),
            context=pieces.context(module=module, result=result),
        )


def _assessments(
    presentation: Presentation, assessments: Columns, registration: Columns, works: Columns, pieces: Pieces
) -> Iterator[npt.NDArray[np.void]]:
    """Yield the decisions, the submissions and the banked results of each assessment."""
    start, module, students = presentation.start, presentation.module, registration["id_student"]
    columns = ("id_assessment", "assessment_type", "date", "weight")
    for key, kind, date, weight in zip(*(assessments[name].tolist() for name in columns), strict=True):
        number = int(key)
        item = pieces.number(f',"item":"{number}"')
        own = {name: column[works["id_assessment"] == key] for name, column in works.items()}
        banked = own["is_banked"] == 1
        submitted = {name: column[~banked] for name, column in own.items()}
        if kind != "Exam" and not math.isnan(date):
            handed_in = _look_up(students, submitted["id_student"], submitted["date_submitted"])
            dates = registration["date_registration"], registration["date_unregistration"]
            day = int(date) - DAYS_AHEAD
            yield _rows(
                "due",
                start + day,
                students[due(int(date), *dates, handed_in)],
                pieces.number(f'{{"id":"d-{number}-'),
                item=item,
                context=pieces.context(module=module, kind=kind, weight=_plain(weight), day=day),
            )
        credited = {name: column[banked] for name, column in own.items()}
        for name, works_of in (("submitted", submitted), ("banked", credited)):
            yield _rows(
                name,
                start + works_of["date_submitted"],
                works_of["id_student"],
                pieces.number(f'{{"id":"{name[0]}-{number}-'),
                item=item,
                value=pieces.each(',"value":', works_of["score"]),
                context=pieces.context(module=module, kind=kind),
            )


def _pages(presentation: Presentation, vle: Columns, sites: Columns, pieces: Pieces) -> npt.NDArray[np.void]:
    """Return the page events, numbered by row; a site that is not in `sites` has no activity."""
    module = presentation.module
    distinct, places = _distinct(vle["id_site"])
    activities = {
        site: {"activity": activity}
        for site, activity in zip(sites["id_site"], sites["activity_type"], strict=True)
    }
    contexts = [pieces.context(module=module, **activities.get(site, {})) for site in distinct.tolist()]
    return _rows(
        "page",
        presentation.start + vle["date"],
        vle["id_student"],
        pieces.number(f'{{"id":"{module}-{presentation.code}-p-'),
        serial=np.arange(len(places)),
        item=pieces.each(',"item":"', distinct, '"')[places],
        value=pieces.each(',"value":', vle["sum_click"]),
        context=np.array(contexts, np.int32)[places],
    )


def _rows(
    kind: str,
    day: npt.ArrayLike,
    user: npt.NDArray[np.float64],
    head: int,
    *,
    serial: npt.NDArray[np.int64] | None = None,
    item: npt.ArrayLike = 0,
    value: npt.ArrayLike = 0,
    context: npt.ArrayLike = 0,
) -> npt.NDArray[np.void]:
    """Return events of one type; their ids are `head` and the serial, by default the user."""
    if np.isnan(day).any():
        raise ValueError(f"each event has a day, but {np.isnan(day).sum()} of {len(user)} `{kind}` have none")
    rows = np.empty(len(user), EVENT)
    rows["kind"] = TYPES.index(kind)
    rows["hour"] = np.asarray(day) * 24 + HOURS[kind]
    rows["user"], rows["head"], rows["serial"] = user, head, user if serial is None else serial
    rows["item"], rows["value"], rows["context"] = item, value, context
    return rows


def _encode(rows: npt.NDArray[np.void], texts: pa.StringArray) -> Batch:
    """Join the pieces of each event: 8 columns of text, one pass."""
    times = rows["hour"].astype(np.int64) * HOUR_MS
    kinds = pa.array([f'","type":"{name}","user":"' for name in TYPES], pa.string())
    joined = pc.binary_join_element_wise(
        texts.take(pa.array(rows["head"])),
        pc.cast(pa.array(rows["serial"]), pa.string()),
        kinds.take(pa.array(rows["kind"])),
        pc.cast(pa.array(rows["user"]), pa.string()),
        pa.scalar('","time":'),
        pc.cast(pa.array(times), pa.string()),
        texts.take(pa.array(rows["item"])),
        texts.take(pa.array(rows["value"])),
        texts.take(pa.array(rows["context"])),
        pa.scalar("}\n"),
        pa.scalar(""),  # the separator
    )
    _, _, characters = joined.buffers()
    return Batch(lines=characters.to_pybytes(), users=rows["user"], times=times, kinds=rows["kind"])


def _look_up(
    wanted: npt.NDArray[np.float64], keys: npt.NDArray[np.float64], values: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Return the value of each wanted key, NaN where there is none."""
    found = dict(zip(keys.tolist(), values.tolist(), strict=True))
    return np.array([found.get(key, np.nan) for key in wanted.tolist()], np.float64)


def _distinct(values: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int32]]:
    """Return the distinct values and each value's place among them; hashing, 6 times as fast as np.unique."""
    encoded = pa.array(values).dictionary_encode()
    return encoded.dictionary.to_numpy(), encoded.indices.to_numpy()


def _plain(number: float) -> int | float:
    """Return a whole number as an int, so that 78.0 is written 78."""
    return int(number) if number == int(number) else number


@click.command()
@click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("out", type=click.File("wb"))
@click.option("--modules", metavar="A,B", help="Only these modules, for example BBB.")
@click.option("--presentations", metavar="A,B", help="Only these presentations, for example 2013B,2013J.")
def main(directory: Path, out: IO[bytes], modules: str | None, presentations: str | None) -> None:
    """Write the OULAD tables in DIRECTORY to OUT (- for standard output) as events, one a line of JSON."""
    counts = np.zeros(len(TYPES), np.int64)
    wanted = [names.split(",") if names else None for names in (modules, presentations)]
    try:
        for batch in batches(directory, *wanted):
            out.write(batch.lines)
            counts += np.bincount(batch.kinds, minlength=len(TYPES))
    except (FileNotFoundError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    for name, count in zip((*TYPES, "all"), (*counts.tolist(), int(counts.sum())), strict=True):
        click.echo(f"{name:12} {count:9,}", err=True)


if __name__ == "__main__":
    main()
