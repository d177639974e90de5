"""Facts about model/example_log.py, on a folder and on a store of objects."""

from __future__ import annotations

import datetime as dt
import os
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from model import example_log
from model.example_log import DAY_MS, ExampleLog, ExampleLogError
from model.examples import table_of
from model.features import Category, FeatureSpec
from tests.builders import START
from tests.test_examples import FEW, example

DATE = dt.date(2023, 11, 14)  # of START, 22:13:20
NEXT = DATE + dt.timedelta(1)


@pytest.fixture(params=["folder", "objects"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a log may be: a folder, or a store that knows objects and no folders."""
    return str(tmp_path / "log") if request.param == "folder" else f"memory://{uuid.uuid4().hex}"


def rows(*names: str, step: int = 1, spec: FeatureSpec = FEW) -> pa.Table:
    """One row a name, ``step`` ms apart."""
    return table_of([example(name, time=START + step * at) for at, name in enumerate(names)], spec)


def names(url: str, date: dt.date = DATE) -> list[str]:
    """The files of a date."""
    files, root = fsspec.core.url_to_fs(url)
    return sorted(path.rpartition("/")[2] for path in files.ls(f"{root}/date={date}", detail=False))


def ids(table: pa.Table) -> list[str]:
    """Sorted, repeats and all."""
    return sorted(map(str, table.column("id").to_pylist()))


def test_rows_lie_by_the_date_of_their_decision(url: str) -> None:
    """What is appended makes one file a date, UTC, under a name that tells where it came from."""
    log = ExampleLog(url)
    assert log.append(rows("a", "b", "c", step=DAY_MS // 2), "examples.0.5-7") == [DATE, NEXT]
    assert log.dates() == [DATE, NEXT]
    (first,), (second,) = names(url), names(url, NEXT)
    assert first.startswith("examples.0.5-7-")
    assert second.startswith("examples.0.5-7-")
    assert log.read().sort_by("time").equals(rows("a", "b", "c", step=DAY_MS // 2))
    assert log.append(rows().slice(0, 0), "nothing") == []


def test_a_stretch_of_time_is_read_from_its_dates_alone(url: str) -> None:
    """Bounds are to the millisecond, and files of other dates are not opened: here they could not be."""
    log = ExampleLog(url)
    log.append(rows("a", "b", "c", "d", step=DAY_MS // 4), "x")
    files, root = fsspec.core.url_to_fs(url)
    for date in ("2023-11-13", "2023-11-16"):
        files.makedirs(f"{root}/date={date}", exist_ok=True)
        files.pipe_file(f"{root}/date={date}/torn.parquet", b"no table")
    assert ids(log.read(START, START + DAY_MS // 4)) == ["a"]
    assert ids(log.read(START + 1, START + DAY_MS // 2 + 1, ["label"])) == ["b", "c"]
    assert log.read(START, START + 1, ["label"]).column_names == ["id", "time", "label"]
    with pytest.raises(ExampleLogError, match=r"cannot be read: .*torn\.parquet"):
        log.read()


def test_an_id_is_read_once(url: str) -> None:
    """A batch that was written again, whole or in other portions, adds no rows to what is read."""
    log = ExampleLog(url)
    log.append(rows("a", "b", "c"), "0-2")
    log.append(rows("a", "b", "c"), "0-2")
    assert len(names(url)) == 1  # the same rows under the same name are the same file
    log.append(rows("a", "b", "c", "d"), "0-3")
    assert ids(log.read()) == ["a", "b", "c", "d"]


def test_nothing_is_there_before_the_first_file(url: str) -> None:
    """A log that nobody has written to has no dates and no rows, and is not made by looking."""
    log = ExampleLog(url)
    assert log.dates() == []
    assert log.read().num_rows == 0
    assert log.compact(DATE) == 0


def test_files_of_an_older_feature_set_are_read_beside_newer_ones(url: str) -> None:
    """A feature that a file does not have yet is null in its rows, before and after compaction."""
    older = FeatureSpec(("views",), ())
    log = ExampleLog(url)
    for name in "ab":
        log.append(rows(name, spec=older), name)
    for name in "cd":
        log.append(rows(name), name)
    for _ in range(2):
        found = log.read().sort_by("id").select(["id", "feature.views", "feature.plan"])
        assert found.to_pylist() == [
            {"id": "a", "feature.views": 3.0, "feature.plan": None},
            {"id": "b", "feature.views": 3.0, "feature.plan": None},
            {"id": "c", "feature.views": 3.0, "feature.plan": "gold"},
            {"id": "d", "feature.views": 3.0, "feature.plan": "gold"},
        ]
        log.compact(DATE)
        assert len(names(url)) == 2  # one a feature set


def test_a_feature_of_two_types_is_refused_only_where_it_is_read(url: str) -> None:
    """A number that became a category cannot be one column; other columns, and later dates, can be read."""
    other = FeatureSpec((), (Category("views", 8),))
    log = ExampleLog(url)
    log.append(rows("a"), "a")
    log.append(table_of([example("b", time=START + DAY_MS, features={"views": "many"})], other), "b")
    with pytest.raises(
        ExampleLogError, match=r"feature\.views.*give it another name, or read from a later date"
    ):
        log.read()
    assert ids(log.read(columns=["label"])) == ["a", "b"]
    assert log.read(START + DAY_MS // 2).column("feature.views").to_pylist() == ["many"]


def test_compaction_leaves_one_sorted_file_without_repeats(url: str) -> None:
    """Small files of a date become one, by time and id; other dates stay as they are."""
    log = ExampleLog(url)
    log.append(rows("c", "b", step=0), "1")
    log.append(rows("b", "a", step=0), "2")
    log.append(table_of([example("later", time=START + DAY_MS)], FEW), "3")
    assert log.compact(DATE, at_least_files=3) == 0
    assert log.compact(DATE, at_least_files=2) == 2
    (merged,) = names(url)
    assert merged.startswith("merged-")
    files, root = fsspec.core.url_to_fs(url)
    with files.open(f"{root}/date={DATE}/{merged}") as file:
        assert pq.read_table(file).column("id").to_pylist() == ["a", "b", "c"]
    assert ids(log.read()) == ["a", "b", "c", "later"]
    assert log.compact(DATE) == 0


def test_large_files_are_left_alone(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is rewritten until it is large, then never again; one merge takes no more than memory allows."""
    log = ExampleLog(url)
    for name in "abcd":
        log.append(rows(name), name)
    files, root = fsspec.core.url_to_fs(url)
    size = max(entry["size"] for entry in files.ls(f"{root}/date={DATE}", detail=True))
    monkeypatch.setattr(example_log, "MERGED_BYTES", 2 * size)
    assert log.compact(DATE) == 4
    assert len(names(url)) == 2
    monkeypatch.setattr(example_log, "SMALL_BYTES", size)
    assert log.compact(DATE) == 0
    assert ids(log.read()) == list("abcd")


class Killed(BaseException):
    """The process ends here."""


class Dying(ExampleLog):
    """A log whose process is killed before its n-th change of the store."""

    def __init__(self, url: str, changes: int) -> None:
        super().__init__(url)
        self.left = changes

    def _put(self, path: str, data: bytes) -> None:
        self._live()
        super()._put(path, data)

    def _delete(self, path: str) -> None:
        self._live()
        super()._delete(path)

    def _live(self) -> None:
        if not self.left:
            raise Killed
        self.left -= 1


@pytest.mark.parametrize("changes", range(5))
def test_a_compaction_killed_at_any_change_loses_nothing(url: str, changes: int) -> None:
    """After each of write, delete, delete, delete: the rows are as before, and the next compaction ends the job."""
    log = ExampleLog(url)
    for name in ("ab", "bc", "cd"):
        log.append(rows(*name), name)
    try:
        Dying(url, changes).compact(DATE)
    except Killed:
        assert changes < 4
    assert ids(log.read()) == list("abcd")
    log.compact(DATE)
    assert len(names(url)) == 1
    assert ids(log.read()) == list("abcd")


def test_a_compaction_that_finds_its_files_gone_leaves_them_to_the_other(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two that compact the same files at once, the one that comes too late changes nothing."""
    log, other = ExampleLog(url), ExampleLog(url)
    for name in "abc":
        log.append(rows(name), name)
    scan = example_log._scan

    def interrupted(*arguments: Any) -> pa.Table:
        monkeypatch.setattr(example_log, "_scan", scan)
        assert other.compact(DATE) == 3
        return scan(*arguments)

    monkeypatch.setattr(example_log, "_scan", interrupted)
    assert log.compact(DATE) == 0
    assert len(names(url)) == 1
    assert ids(log.read()) == list("abc")


def test_a_compaction_that_writes_after_the_other_loses_nothing(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two merge the same files, a third merges the result further before the second writes: every row is there."""
    log, other = ExampleLog(url), ExampleLog(url)
    for name in "abc":
        log.append(rows(name), name)
    parquet = example_log._parquet

    def interrupted(table: pa.Table) -> bytes:
        monkeypatch.setattr(example_log, "_parquet", parquet)
        assert other.compact(DATE) == 3
        other.append(rows("d"), "d")
        assert other.compact(DATE) == 2
        return parquet(table)

    monkeypatch.setattr(example_log, "_parquet", interrupted)
    assert log.compact(DATE) == 3
    assert len(names(url)) == 2  # the first result is there again, and harmless
    assert ids(log.read()) == list("abcd")
    log.compact(DATE)
    assert ids(log.read()) == list("abcd")


def test_what_a_compaction_takes_away_from_a_reader_is_read_again(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader whose files are merged after it listed them lists anew; one that never gets to read says so."""
    log, other = ExampleLog(url), ExampleLog(url)
    for name in "ab":
        log.append(rows(name), name)
    dataset = example_log._dataset
    fresh = iter("cdefghijkl")

    def interrupted(files: Any, paths: Any) -> Any:
        monkeypatch.setattr(example_log, "_dataset", dataset)
        other.compact(DATE)
        return dataset(files, paths)

    monkeypatch.setattr(example_log, "_dataset", interrupted)
    assert ids(log.read()) == ["a", "b"]

    def always(files: Any, paths: Any) -> Any:
        monkeypatch.setattr(example_log, "_dataset", dataset)
        other.append(rows(next(fresh)), "more")
        other.compact(DATE)
        monkeypatch.setattr(example_log, "_dataset", always)
        return dataset(files, paths)

    monkeypatch.setattr(example_log, "_dataset", always)
    with pytest.raises(ExampleLogError, match="files went away 5 times while they were read; read again"):
        log.read()


def test_a_listing_that_a_compaction_runs_through_is_listed_again(url: str) -> None:
    """A folder listed while files come and go may show neither the old nor the new; it is not believed."""
    log = ExampleLog(url)
    for name in "ab":
        log.append(rows(name), name)
    listings: Iterator[list[Any]] = iter([[], log._list(log._folder(DATE))])
    real = log._list
    log._list = lambda folder: next(listings, None) or real(folder)  # type: ignore[method-assign]
    assert len(log._at(DATE)) == 2


def test_threads_append_compact_and_read_at_once(url: str) -> None:
    """Two writers, two compactions and a reader: what was appended before a read is in it, each id once."""
    written: list[str] = []

    def write(writer: int) -> None:
        for at in range(40):
            name = f"{writer}-{at}"
            ExampleLog(url).append(rows(name, f"{name}-too"), name)
            written.append(name)

    with ThreadPoolExecutor() as pool:
        writers = [pool.submit(write, writer) for writer in range(2)]

        def meanwhile(act: Callable[[], None]) -> None:
            while not all(writer.done() for writer in writers):
                act()

        def read() -> None:
            before = set(written)
            found = ids(ExampleLog(url).read(columns=["label"])) if before else []
            assert before <= set(found)
            assert len(set(found)) == len(found)

        def compact() -> None:
            ExampleLog(url).compact(DATE)

        acts = (compact, compact, read)
        for each in [*writers, *(pool.submit(meanwhile, act) for act in acts)]:
            each.result()
    assert ids(ExampleLog(url).read()) == sorted(name + end for name in written for end in ("", "-too"))


def test_only_whole_files_are_read(tmp_path: Path) -> None:
    """What a killed writer left unfinished, and what is no Parquet, is no part of the log."""
    log = ExampleLog(tmp_path)
    log.append(rows("a"), "a")
    (tmp_path / f"date={DATE}" / ".0123.part").write_bytes(b"half a file")
    (tmp_path / f"date={DATE}" / "notes.txt").write_text("mine")
    (tmp_path / "README.md").write_text("mine")
    (tmp_path / "drafts").mkdir()
    assert log.dates() == [DATE]
    assert ids(log.read()) == ["a"]


def test_files_can_be_read_by_others(tmp_path: Path) -> None:
    """Files have the permissions that the umask gives, so that other accounts may analyse them."""
    mask = os.umask(0o022)
    try:
        ExampleLog(tmp_path).append(rows("a"), "a")
    finally:
        os.umask(mask)
    (file,) = tmp_path.glob("*/*.parquet")
    assert file.stat().st_mode & 0o777 == 0o644


def test_where_the_log_cannot_be_says_why(tmp_path: Path) -> None:
    """A place that does not take files is found before anything is read from Kafka."""
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ExampleLogError, match=r"cannot be written: .*check that the store can be reached"):
        ExampleLog(tmp_path / "file").check()
    with pytest.raises(ExampleLogError, match="no way to reach it"):
        ExampleLog("nosuch://bucket")
    ExampleLog(tmp_path / "new" / "log").check()
    assert list((tmp_path / "new" / "log").iterdir()) == []


def test_any_reader_of_parquet_sees_the_date(tmp_path: Path) -> None:
    """The layout is Hive's: pyarrow's own dataset reads it and prunes by date."""
    import pyarrow.dataset as ds

    ExampleLog(tmp_path).append(rows("a", "b", step=DAY_MS), "x")
    found = ds.dataset(tmp_path, partitioning="hive").to_table(filter=ds.field("date") == str(NEXT))
    assert ids(found) == ["b"]


def test_a_long_name_is_cut(url: str) -> None:
    """A batch of many partitions has a name longer than file systems take; what is cut tells nothing apart."""
    log = ExampleLog(url)
    for name in "ab":
        log.append(rows(name), "examples" + ".10.1234567-1234667" * 64)
    assert all(len(name) < 230 for name in names(url))
    assert ids(log.read()) == ["a", "b"]
