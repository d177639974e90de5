"""The example log: matured examples as Parquet, a folder a date, in a local folder or an object store.

    URL/date=2024-03-01/NAME.parquet    the date is that of the decision, UTC

:mod:`retrain.sink` appends and compacts, :mod:`model.examples` reads, and so may any reader of Parquet (``docs/examples.md``).
Nothing is locked; what any number of writers, compactions and readers rely on is this. A file appears whole or not at
all. Its name fixes its rows: an appended file's ends with a digest of its bytes, a merged one's is a digest of its
sources' names. A compaction deletes a file only when the one merged from it is there, and no name can be derived from
itself, so a row that was written always is in some file, wherever anyone is killed. What it may be is there twice:
readers keep one row an ``id``.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import hashlib
import operator
import os
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem
from numpy.typing import NDArray

from model.durable import sync

SMALL_BYTES = 64 * 1024 * 1024  # a file from this size on is left alone, so that no row is rewritten for ever
MERGED_BYTES = 128 * 1024 * 1024  # of one merged file's sources: it is made in memory, at several times that
NAME_CHARACTERS = 200  # file systems allow 255 bytes; a digest and a suffix follow
READ_ATTEMPTS = 5  # each fails only if a compaction of a date that is read ends just then
DAY_MS = 86_400_000
_PREFIX, _SUFFIX = "date=", ".parquet"


class ExampleLogError(Exception):
    """The log cannot be reached, read or written: where, what came, what to do."""


class _File(NamedTuple):
    path: str
    size: int  # bytes


class ExampleLog:
    """The log at ``url``: a folder, or what fsspec takes (``s3://bucket/log``, with s3fs installed).

    Raises :class:`ExampleLogError` when nothing is installed that can reach ``url``.
    """

    def __init__(self, url: str | Path) -> None:
        self.url = str(url)
        self._files, self._root = _locate(self.url)
        self._local = isinstance(self._files, LocalFileSystem)

    def check(self) -> None:
        """Write a file and delete it; raises :class:`ExampleLogError` when that cannot be done."""
        probe = f"{self._root}/.probe-{uuid.uuid4().hex}"
        with _writing(probe):
            self._put(probe, b"eddyline")
            self._delete(probe)

    def append(self, table: pa.Table, name: str) -> list[dt.date]:
        """Write the rows of ``table``, a file a date of its ``time``, and return those dates; durable on return.

        ``name`` says where the rows come from. To append the same again replaces the files, if they still are there.
        Raises :class:`ExampleLogError`; some of the files may be there then, so append again.
        """
        if not len(table):
            return []
        days = table.column("time").to_numpy() // DAY_MS
        order = np.argsort(days, kind="stable")
        first = np.flatnonzero(np.diff(days[order], prepend=-1))
        dates = [dt.date(1970, 1, 1) + dt.timedelta(int(day)) for day in days[order[first]]]
        table = table.take(order)
        for date, begin, end in zip(dates, first, [*first[1:], len(table)], strict=True):
            data = _parquet(table.slice(begin, end - begin))
            file = f"{name[:NAME_CHARACTERS]}-{_digest(data)}{_SUFFIX}"
            path = f"{self._folder(date)}/{file}"
            with _writing(path):
                self._put(path, data)
        return dates

    def dates(self) -> list[dt.date]:
        """The dates that have a folder, in order."""
        found = []
        for entry in self._list(self._root):
            name = entry["name"].rstrip("/").rpartition("/")[2]
            with contextlib.suppress(ValueError):  # a folder of someone else's
                found.append(dt.date.fromisoformat(name.removeprefix(_PREFIX)))
        return sorted(found)

    def read(
        self, begin: int | None = None, end: int | None = None, columns: Sequence[str] | None = None
    ) -> pa.Table:
        """The rows whose time is from ``begin`` to before ``end`` (ms), one an id, in no particular order.

        Of ``columns`` (None: all) those that a file has, and always id and time; where another file has a column, a
        row without it is null. A table without columns where there is no file. Raises :class:`ExampleLogError`.
        """
        for _ in range(READ_ATTEMPTS):
            files = [file for date in self.dates() if _within(date, begin, end) for file in self._at(date)]
            try:
                with _reading(self.url):
                    table = _scan(self._files, [file.path for file in files], columns, begin, end)
            except FileNotFoundError:  # merged into another since it was listed
                continue
            return unique(table)
        raise ExampleLogError(
            f"{self.url}: files went away {READ_ATTEMPTS} times while they were read; read again"
        )

    def small_files(self, date: dt.date) -> int:
        """How many files of ``date`` a compaction would merge."""
        return sum(file.size < SMALL_BYTES for file in self._at(date))

    def compact(self, date: dt.date, at_least_files: int = 2) -> int:
        """Merge the small files of ``date`` if there are ``at_least_files`` of them; returns how many were merged.

        A merged file has one row an id, by time and id. Files of other columns, as another version of the use case
        writes, are merged apart. 0 as well if another compaction took files away. Raises :class:`ExampleLogError`.
        """
        small = [file for file in self._at(date) if file.size < SMALL_BYTES]
        if len(small) < max(2, at_least_files):
            return 0
        try:
            with _reading(self.url):
                return sum(self._merge(date, paths) for paths in self._groups(small))
        except FileNotFoundError:
            return 0

    def _merge(self, date: dt.date, paths: Sequence[str]) -> int:
        table = unique(_scan(self._files, paths))
        table = table.sort_by([("time", "ascending"), ("id", "ascending")])
        names = "\n".join(path.rpartition("/")[2] for path in sorted(paths))
        target = f"{self._folder(date)}/merged-{_digest(names.encode())}{_SUFFIX}"
        with _writing(target):
            self._put(target, _parquet(table))
            for path in paths:
                self._delete(path)
        return len(paths)

    def _groups(self, files: Iterable[_File]) -> Iterator[list[str]]:
        """Paths to merge with one another: of the same columns, and not more at once than memory should hold."""
        open_: dict[pa.Schema, tuple[list[str], int]] = {}
        for file in files:
            schema = _dataset(self._files, [file.path]).schema
            paths, size = open_.get(schema, ([], 0))
            if paths and size + file.size > MERGED_BYTES:
                yield paths
                paths, size = [], 0
            open_[schema] = [*paths, file.path], size + file.size
        yield from (paths for paths, _ in open_.values() if len(paths) > 1)

    def _folder(self, date: dt.date) -> str:
        return f"{self._root}/{_PREFIX}{date.isoformat()}"

    def _at(self, date: dt.date) -> list[_File]:
        """The files of ``date``, by name."""
        # A listing under way while a compaction writes one file and deletes others may show neither: two agree.
        listed: list[_File] | None = None
        while True:
            again = sorted(
                _File(entry["name"], entry["size"] or 0)
                for entry in self._list(self._folder(date))
                if entry["name"].endswith(_SUFFIX) and entry["type"] == "file"
            )
            if again == listed:
                return again
            listed = again

    def _list(self, folder: str) -> list[dict[str, Any]]:
        try:
            with _reading(self.url):
                entries: list[dict[str, Any]] = self._files.ls(folder, detail=True)
        except FileNotFoundError:
            return []
        return entries

    def _put(self, path: str, data: bytes) -> None:
        """Make the file ``path``, whole or not at all."""
        if not self._local:
            self._files.pipe_file(path, data)  # an object appears when all of it is there
            return
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{uuid.uuid4().hex}.part")
        with part.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
        for folder in (target.parent, Path(self._root)):
            sync(folder)

    def _delete(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):  # another compaction merged it, too
            self._files.rm_file(path)


def read_table(
    where: str | Path, begin: int | None = None, end: int | None = None, columns: Sequence[str] | None = None
) -> pa.Table:
    """As :meth:`ExampleLog.read`, of a log or of one Parquet file; a file's rows come as they stand in it."""
    files, path = _locate(str(where))
    if not files.isfile(path):
        return ExampleLog(where).read(begin, end, columns)
    with _reading(str(where)):
        return _scan(files, [path], columns, begin, end)


def unique(table: pa.Table) -> pa.Table:
    """The rows of ``table``, of each id the first."""
    if not len(table):
        return table
    codes, ids = encoded(table.column("id"))
    if len(ids) == len(table):
        return table
    first = np.empty(len(ids), np.int64)
    first[codes[::-1]] = np.arange(len(table))[
        ::-1
    ]  # of an index that occurs again the last assignment stays
    kept = np.zeros(len(table), bool)
    kept[first] = True
    return table.filter(pa.array(kept))


def encoded(strings: Any) -> tuple[NDArray[np.int64], Any]:
    """A column of n strings as codes [n] and the array of what they stand for, each once, in order of appearance."""
    chunks = pc.dictionary_encode(strings.cast(pa.string()), null_encoding="encode").chunks
    codes = np.concatenate([chunk.indices.to_numpy() for chunk in chunks]).astype(np.int64)
    return codes, chunks[0].dictionary  # all chunks share one


def _locate(url: str) -> tuple[Any, str]:
    """The file system of ``url`` and the path in it."""
    try:
        files, path = fsspec.core.url_to_fs(url, use_listings_cache=False)
    except (ImportError, ValueError) as error:
        raise ExampleLogError(
            f"{url}: no way to reach it: {error}; correct the URL, or install the package that it names"
        ) from error
    return files, path.rstrip("/")


@contextlib.contextmanager
def _writing(path: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # each store's driver raises its own
        raise ExampleLogError(
            f"{path}: cannot be written: {error!r}; check that the store can be reached, has room and lets this user "
            "write and delete"
        ) from error


@contextlib.contextmanager
def _reading(url: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise  # the caller's: what a compaction has merged is read anew
    except (OSError, pa.ArrowException) as error:
        raise ExampleLogError(
            f"{url}: cannot be read: {error}; take a damaged file out of its folder; where a feature's type has changed, "
            "give it another name, or read from a later date on"
        ) from error


def _scan(
    files: Any,
    paths: Sequence[str],
    columns: Sequence[str] | None = None,
    begin: int | None = None,
    end: int | None = None,
) -> pa.Table:
    """The rows of ``paths`` in their order, of the wanted columns those that any of them has."""
    if not paths:
        return pa.table({})
    dataset = _dataset(files, paths)
    schemas = [fragment.physical_schema.remove_metadata() for fragment in dataset.get_fragments()]
    if columns is not None:
        wanted = {"id", "time", *columns}
        schemas = [pa.schema([field for field in schema if field.name in wanted]) for schema in schemas]
    dataset = dataset.replace_schema(pa.unify_schemas(schemas, promote_options="permissive"))
    bounds = [ds.field("time") >= begin] if begin is not None else []
    bounds += [ds.field("time") < end] if end is not None else []
    table: pa.Table = dataset.to_table(filter=functools.reduce(operator.and_, bounds) if bounds else None)
    return table


def _dataset(files: Any, paths: Sequence[str]) -> Any:
    return ds.dataset(list(paths), filesystem=files, format="parquet", partitioning=None)


def _within(date: dt.date, begin: int | None, end: int | None) -> bool:
    first = (date - dt.date(1970, 1, 1)).days * DAY_MS
    return (begin is None or begin < first + DAY_MS) and (end is None or first < end)


def _parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    # Numbers and ids hardly repeat: a dictionary of them makes the file half as large again and takes four times as long.
    repeating = [
        field.name for field in table.schema if pa.types.is_string(field.type) and field.name != "id"
    ]
    pq.write_table(table, sink, compression="zstd", use_dictionary=repeating)  # type: ignore[arg-type]
    return sink.getvalue().to_pybytes()


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
