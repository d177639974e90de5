"""OULAD as events: what `examples.oulad.convert` makes of the sample, and of tables small enough to read."""

import datetime as dt
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import click.testing
import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from examples.oulad import convert

SAMPLE = Path(convert.__file__).parent / "data"
DAY = 86_400_000  # ms

Cell = str | float | None


class Event(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True, gc=False):
    """The event contract, version 1."""

    id: str
    type: str
    user: str
    time: int
    item: str | None = None
    value: float | None = None
    context: dict[str, str | float | bool] | None = None


def decoded(directory: Path, runs: Sequence[str] | None = None) -> list[Event]:
    """Return the events of all presentations, or of these."""
    decoder = msgspec.json.Decoder(Event)
    return [decoder.decode(line) for lines in convert.events(directory, None, runs) for line in lines]


@pytest.fixture(scope="module")
def first_run() -> list[Event]:
    """BBB 2013B, from the sample."""
    return decoded(SAMPLE, runs=["2013B"])


def write_table(path: Path, columns: str, *rows: Sequence[Cell]) -> None:
    """Write a table as it was published: every number a double."""
    names = columns.split()
    texts = {"code_module", "code_presentation", "assessment_type", "activity_type", "final_result"}
    arrays = [
        pa.array(values, pa.large_string() if name in texts else pa.float64())
        for name, values in zip(names, zip(*rows, strict=True), strict=True)
    ]
    path.parent.mkdir(exist_ok=True)
    pq.write_table(pa.table(arrays, names=names), path)


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """One presentation, XYZ 2014J, with seven students and a case of each rule. It starts on 2014-10-01."""
    run = ("XYZ", "2014J")
    write_table(
        tmp_path / "courses.parquet", "code_module code_presentation module_presentation_length", (*run, 240)
    )
    write_table(
        tmp_path / "assessments.parquet",
        "code_module code_presentation id_assessment assessment_type date weight",
        (*run, 7, "TMA", 20, 12.5),
        (*run, 8, "Exam", 100, 100),
        (*run, 9, "Exam", None, 100),
    )
    write_table(
        tmp_path / "studentRegistration.parquet",
        "code_module code_presentation id_student date_registration date_unregistration",
        (*run, 1, -30, None),
        (*run, 2, None, 13),
        (*run, 3, 13, None),
        (*run, 4, 14, None),
        (*run, 5, -1, 14),
        (*run, 6, 13, None),
        (*run, 7, -5, None),
    )
    write_table(
        tmp_path / "studentInfo.parquet",
        "code_module code_presentation id_student final_result",
        (*run, 1, "Distinction"),
        (*run, 2, "Withdrawn"),
        (*run, 3, "Pass"),
        (*run, 4, "Fail"),
        (*run, 5, "Withdrawn"),
        (*run, 6, "Fail"),
        (*run, 7, "Fail"),
    )
    write_table(
        tmp_path / "studentAssessment.parquet",
        "id_assessment id_student date_submitted is_banked score",
        (7, 1, 13, 0, 78),
        (7, 3, -1, 1, None),
        (7, 4, -1, 1, 55),
        (7, 6, 27, 0, None),
        (7, 7, 12, 0, 60),
        (8, 1, 98, 0, 81),
    )
    write_table(
        tmp_path / "vle.parquet",
        "id_site code_module code_presentation activity_type",
        (900, *run, "oucontent"),
    )
    write_table(
        tmp_path / "studentVle" / "XYZ_2014J.parquet",
        "id_student id_site date sum_click",
        (1, 900, -2, 3),
        (1, 900, -2, 3),
        (3, 901, 13, 1),
    )
    return tmp_path


def of_type(name: str, events: list[Event]) -> list[tuple[str, str | None, int]]:
    """Return the user, the item and the time of each event of a type."""
    return [(event.user, event.item, event.time) for event in events if event.type == name]


def at(day: int, hour: int) -> int:
    """Return the time of a day of the tiny presentation."""
    moment = dt.datetime(2014, 10, 1, tzinfo=dt.UTC) + dt.timedelta(days=day, hours=hour)
    return int(moment.timestamp() * 1000)


def test_order(first_run: list[Event]) -> None:
    """Events come in order of time, and within an instant in order of type."""
    order = [(event.time, convert.TYPES.index(event.type)) for event in first_run]
    assert order == sorted(order)


def test_ids(first_run: list[Event]) -> None:
    """No two events share an id, though the same page is often opened twice a day."""
    assert len({event.id for event in first_run}) == len(first_run)


def test_counts(first_run: list[Event]) -> None:
    """BBB 2013B has one event for each row of its tables that says something happened."""
    assert Counter(event.type for event in first_run) == {
        "registered": 1_766,
        "unregistered": 505,
        "due": 15_296,
        "submitted": 11_222,
        "banked": 34,
        "page": 403_266,
        "completed": 803,
    }


def test_base_rate(first_run: list[Event]) -> None:
    """Of the 15,296 decisions of BBB 2013B, 68.6 % are followed by the submission within 14 days, inclusive."""
    submitted = {(user, item): time for user, item, time in of_type("submitted", first_run)}
    waits = [
        submitted[user, item] - time
        for user, item, time in of_type("due", first_run)
        if (user, item) in submitted
    ]
    assert sum(0 <= wait <= 14 * DAY for wait in waits) == 10_489


def test_decisions_are_open(first_run: list[Event]) -> None:
    """A decision is for someone who has registered, has not left and has not submitted."""
    here: set[str] = set()
    done: set[tuple[str, str | None]] = set()
    for event in first_run:
        match event.type:
            case "registered":
                here.add(event.user)
            case "unregistered":
                here.discard(event.user)
            case "submitted":
                done.add((event.user, event.item))
            case "due":
                assert event.user in here
                assert (event.user, event.item) not in done


def test_window_ends(tiny: Path) -> None:
    """A submission on the decision's day comes after it, and one on the 14th day after it is 14 days later."""
    events = decoded(tiny)
    assert [(event.type, event.user) for event in events if event.time == at(13, 0) and event.item] == [
        ("due", "1"),
        ("due", "3"),
        ("due", "5"),
        ("due", "6"),
        ("submitted", "1"),
    ]
    assert ("6", "7", at(13, 0) + 14 * DAY) in of_type("submitted", events)


def test_exam(tiny: Path) -> None:
    """An exam is no decision, with a date or without; a result of it is still an event."""
    events = decoded(tiny)
    assert {item for _, item, _ in of_type("due", events)} == {"7"}
    assert ("1", "8", at(98, 0)) in of_type("submitted", events)


def test_banked(tiny: Path) -> None:
    """A banked result is no submission, and does not stop the decision."""
    events = decoded(tiny)
    assert [user for user, _, _ in of_type("banked", events)] == ["3", "4"]
    assert [user for user, _, _ in of_type("submitted", events)] == ["7", "1", "6", "1"]
    assert ("3", "7", at(13, 0)) in of_type("due", events)


def test_registration_without_a_day(tiny: Path) -> None:
    """A registration without a day is no event and has no decision, whenever its withdrawal was."""
    write_table(
        tiny / "studentRegistration.parquet",
        "code_module code_presentation id_student date_registration date_unregistration",
        ("XYZ", "2014J", 1, -30, None),
        ("XYZ", "2014J", 2, None, 100),
        ("XYZ", "2014J", 6, None, None),
    )
    events = decoded(tiny)
    assert [user for user, _, _ in of_type("registered", events)] == ["1"]
    assert [user for user, _, _ in of_type("due", events)] == ["1"]
    assert of_type("unregistered", events) == [("2", None, at(100, 0))]


def test_a_selection_is_a_subsequence(tiny: Path) -> None:
    """Choosing presentations only leaves events out: ids and order stay, also among events of one instant."""
    write_table(
        tiny / "courses.parquet",
        "code_module code_presentation module_presentation_length",
        ("XYZ", "2014J", 240),
        ("ABC", "2014J", 240),
        ("ABC", "2014B", 240),
    )
    for run in ("ABC_2014J", "ABC_2014B"):
        rows = (1, 900, -2, 3), (2, 900, 5, 1)
        write_table(tiny / "studentVle" / f"{run}.parquet", "id_student id_site date sum_click", *rows)
    everything = [line for lines in convert.events(tiny) for line in lines]
    chosen = [line for lines in convert.events(tiny, None, {"2014J"}) for line in lines]
    assert chosen == [line for line in everything if b"ABC-2014B" not in line]
    only = [line for lines in convert.events(tiny, {"XYZ"}) for line in lines]
    assert only == [line for line in everything if b'"ABC"' not in line]


def test_published_tables(tiny: Path) -> None:
    """Doubles become whole numbers, days become hours, and what is null is left out."""
    where: dict[str, str | float | bool] = {"module": "XYZ", "presentation": "2014J"}
    page: dict[str, str | float | bool] = {"module": "XYZ", "activity": "oucontent"}
    due: dict[str, str | float | bool] = {"module": "XYZ", "kind": "TMA", "weight": 12.5, "day": 13}
    work: dict[str, str | float | bool] = {"module": "XYZ", "kind": "TMA"}
    exam: dict[str, str | float | bool] = {"module": "XYZ", "kind": "Exam"}
    assert decoded(tiny) == [
        Event(id="XYZ-2014J-r-1", type="registered", user="1", time=at(-30, 0), context=where),
        Event(id="XYZ-2014J-r-7", type="registered", user="7", time=at(-5, 0), context=where),
        Event(id="XYZ-2014J-p-0", type="page", user="1", time=at(-2, 12), item="900", value=3, context=page),
        Event(id="XYZ-2014J-p-1", type="page", user="1", time=at(-2, 12), item="900", value=3, context=page),
        Event(id="XYZ-2014J-r-5", type="registered", user="5", time=at(-1, 0), context=where),
        Event(id="b-7-3", type="banked", user="3", time=at(-1, 0), item="7", context=work),
        Event(id="b-7-4", type="banked", user="4", time=at(-1, 0), item="7", value=55, context=work),
        Event(id="s-7-7", type="submitted", user="7", time=at(12, 0), item="7", value=60, context=work),
        Event(id="XYZ-2014J-r-3", type="registered", user="3", time=at(13, 0), context=where),
        Event(id="XYZ-2014J-r-6", type="registered", user="6", time=at(13, 0), context=where),
        Event(id="XYZ-2014J-u-2", type="unregistered", user="2", time=at(13, 0), context=where),
        Event(id="d-7-1", type="due", user="1", time=at(13, 0), item="7", context=due),
        Event(id="d-7-3", type="due", user="3", time=at(13, 0), item="7", context=due),
        Event(id="d-7-5", type="due", user="5", time=at(13, 0), item="7", context=due),
        Event(id="d-7-6", type="due", user="6", time=at(13, 0), item="7", context=due),
        Event(id="s-7-1", type="submitted", user="1", time=at(13, 0), item="7", value=78, context=work),
        Event(
            id="XYZ-2014J-p-2",
            type="page",
            user="3",
            time=at(13, 12),
            item="901",
            value=1,
            context={"module": "XYZ"},
        ),
        Event(id="XYZ-2014J-r-4", type="registered", user="4", time=at(14, 0), context=where),
        Event(id="XYZ-2014J-u-5", type="unregistered", user="5", time=at(14, 0), context=where),
        Event(id="s-7-6", type="submitted", user="6", time=at(27, 0), item="7", context=work),
        Event(id="s-8-1", type="submitted", user="1", time=at(98, 0), item="8", value=81, context=exam),
        Event(
            id="XYZ-2014J-c-3",
            type="completed",
            user="3",
            time=at(240, 23),
            context={"module": "XYZ", "result": "Pass"},
        ),
        Event(
            id="XYZ-2014J-c-1",
            type="completed",
            user="1",
            time=at(240, 23),
            context={"module": "XYZ", "result": "Distinction"},
        ),
    ]


def test_keys_and_times(tiny: Path) -> None:
    """A batch carries the user and the time of each of its lines, so that a producer need not decode them."""
    (batch,) = convert.batches(tiny)
    events = [msgspec.json.decode(line, type=Event) for line in batch.lines.splitlines()]
    assert [str(user) for user in batch.users] == [event.user for event in events]
    assert batch.times.tolist() == [event.time for event in events]
    assert [convert.TYPES[kind] for kind in batch.kinds] == [event.type for event in events]


def test_command(tiny: Path, tmp_path: Path) -> None:
    """The command writes one event a line and says how many there are of each type."""
    out = tmp_path / "events.jsonl"
    result = click.testing.CliRunner().invoke(convert.main, [str(tiny), str(out), "--presentations", "2014J"])
    assert result.exit_code == 0
    assert result.stderr.split()[:2] == ["registered", "6"]
    assert out.read_bytes().splitlines() == [line for lines in convert.events(tiny) for line in lines]


@pytest.mark.parametrize(
    ("option", "message"), [("--modules", "there are XYZ"), ("--presentations", "there are 2014J")]
)
def test_unknown_selection(tiny: Path, option: str, message: str) -> None:
    """Asking for what is not in the tables is an error that says what is."""
    result = click.testing.CliRunner().invoke(convert.main, [str(tiny), "-", option, "QQQ"])
    assert result.exit_code == 1
    assert "no QQQ here" in result.stderr
    assert message in result.stderr


def test_missing_day(tiny: Path) -> None:
    """A page without a day is refused: it has no place in the order of events."""
    write_table(
        tiny / "studentVle" / "XYZ_2014J.parquet",
        "id_student id_site date sum_click",
        (1, 900, None, 3),
        (1, 900, 2, 3),
    )
    with pytest.raises(ValueError, match="1 of 2 `page` have none"):
        decoded(tiny)
