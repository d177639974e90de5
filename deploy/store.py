"""Where the registry keeps its files: a folder, or an object store. For :mod:`deploy.registry` alone.

Both keep the same promises, on which everything else rests: a file appears whole or not at all, of any number that
:meth:`~Store.create` one path at the same time exactly one does, what was written is seen by whoever reads next, and it
survives a power cut. A path is relative, its parts divided by ``/``.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Protocol

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import from_url

from model.bundle import Fault
from model.durable import sync

if TYPE_CHECKING:
    from obstore.store import ClientConfig, ObjectStore, RetryConfig

# A store that does not answer is an error within seconds: whoever asked goes on with what is live, and asks again.
CLIENT: ClientConfig = {"connect_timeout": "5s", "timeout": "60s"}
RETRY: RetryConfig = {"max_retries": 3, "retry_timeout": timedelta(seconds=20)}
MARK = ".writing"  # ends the names of what is not whole yet


class RegistryError(RuntimeError):
    """The registry cannot be read, written or understood: where, the rule, what came instead, what to do."""

    def __init__(self, message: str, fault: Fault = Fault.UNREADABLE) -> None:
        super().__init__(message)
        self.fault = fault


class Store(Protocol):
    """What a registry needs of the place that it is in. Every method raises :class:`RegistryError`."""

    def get(self, path: str) -> bytes | None:
        """The file at ``path``, or None where there is none."""

    def put(self, path: str, data: bytes) -> None:
        """Write ``path``, over what was there."""

    def create(self, path: str, data: bytes) -> bool:
        """Write ``path`` unless it is there; whether this call did."""

    def delete(self, path: str) -> None:
        """Delete ``path``, if it is there."""

    def names(self, folder: str) -> list[str]:
        """The paths of all files below ``folder``, at any depth, in order."""

    def folders(self, folder: str) -> list[str]:
        """The names of the folders in ``folder``, in order."""

    def place(self, source: Path, files: Sequence[str], folder: str) -> bool:
        """Copy ``files`` of ``source`` to ``folder``, the last one last; False if they were there already.

        Raises :class:`RegistryError` where others are there.
        """


def store_at(url: str) -> Store:
    """The store that ``url`` names; does no I/O. Raises :class:`RegistryError` for a URL that nothing can reach."""
    scheme, mark, rest = url.partition("://")
    if not mark:
        return Folder(Path(url).absolute())
    if scheme == "file":
        return Folder(Path(rest).absolute())
    try:
        if scheme == "memory":  # takes no options; for tests: it ends with the process
            return Objects(url, from_url(url))
        return Objects(url, from_url(url, client_options=_client(os.environ), retry_config=RETRY))
    except (BaseError, ValueError, TypeError) as error:
        raise RegistryError(
            f"{url}: a registry is a folder, or an s3://, gs:// or az:// URL with its credentials in the environment: "
            f"{_first_line(error)}; correct registry.url"
        ) from error


class Folder:
    """A folder on this machine, or on a network share that several mount. It has to know hard links."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def get(self, path: str) -> bytes | None:
        """See :class:`Store`."""
        with self._reading(path):
            try:
                return self._at(path).read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                return None

    def put(self, path: str, data: bytes) -> None:
        """See :class:`Store`."""
        target = self._at(path)
        with self._writing(path), self._whole(target, data) as temporary:
            temporary.replace(target)

    def create(self, path: str, data: bytes) -> bool:
        """See :class:`Store`."""
        target = self._at(path)
        with self._writing(path):
            if target.exists():  # the usual way to lose, and no file is made for it
                return False
            with self._whole(target, data) as temporary:
                try:
                    os.link(temporary, target)
                except FileExistsError:
                    # a network share may have linked it and lost the answer
                    return temporary.stat().st_nlink == 2
        return True

    def delete(self, path: str) -> None:
        """See :class:`Store`."""
        with self._writing(path):
            self._at(path).unlink(missing_ok=True)

    def names(self, folder: str) -> list[str]:
        """See :class:`Store`."""
        found: list[str] = []
        with self._reading(folder):
            for at, below, files in os.walk(self._at(folder), onerror=_unless_missing):
                below[:] = (name for name in below if not name.endswith(MARK))
                inside = Path(at).relative_to(self.root)
                found += ((inside / name).as_posix() for name in files if not name.endswith(MARK))
        return sorted(found)

    def folders(self, folder: str) -> list[str]:
        """See :class:`Store`."""
        with self._reading(folder):
            try:
                found = list(self._at(folder).iterdir())
            except (FileNotFoundError, NotADirectoryError):
                return []
            return sorted(path.name for path in found if not path.name.endswith(MARK) and path.is_dir())

    def place(self, source: Path, files: Sequence[str], folder: str) -> bool:
        """See :class:`Store`; the folder takes its name when it is whole."""
        target = self._at(folder)
        temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}{MARK}")
        with self._writing(folder):
            if target.exists():
                return False
            try:
                for name in files:
                    copy = temporary / name
                    copy.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(source / name, copy)
                for path in (*temporary.rglob("*"), temporary):
                    sync(path)
                try:
                    temporary.rename(target)
                except OSError:
                    if target.exists():  # another was first
                        return False
                    raise
                self._sync_names(target)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        return True

    def _at(self, path: str) -> Path:
        return self.root / _inside(path)

    @contextmanager
    def _whole(self, target: Path, data: bytes) -> Iterator[Path]:
        """Yield a sibling of ``target`` that holds ``data``, on the disk; the name that the block gives it is, too."""
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}{MARK}")
        try:
            temporary.write_bytes(data)
            sync(temporary)
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)
        self._sync_names(target)

    def _sync_names(self, path: Path) -> None:
        """Flush the names of ``path`` and of the folders that it is in, which may be new."""
        for folder in path.parents:
            sync(folder)
            if folder == self.root:
                break

    @contextmanager
    def _reading(self, path: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RegistryError(
                f"{self.root / path}: cannot be read: {error.strerror or error}; make the registry readable"
            ) from error

    @contextmanager
    def _writing(self, path: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RegistryError(
                f"{self.root / path}: cannot be written: {error.strerror or error}; "
                "the registry needs a folder that takes files and hard links, with room left"
            ) from error


class Objects:
    """An object store, or a part of one below a prefix."""

    def __init__(self, url: str, objects: ObjectStore) -> None:
        self._url = url.rstrip("/")
        self._objects = objects

    def get(self, path: str) -> bytes | None:
        """See :class:`Store`."""
        with self._talking("read", path):
            try:
                return bytes(obstore.get(self._objects, _inside(path)).bytes())
            except FileNotFoundError:
                return None

    def put(self, path: str, data: bytes) -> None:
        """See :class:`Store`."""
        with self._talking("written", path):
            obstore.put(self._objects, _inside(path), data)

    def create(self, path: str, data: bytes) -> bool:
        """See :class:`Store`."""
        with self._talking("written", path):
            try:
                # in one request: a store knows create-only for that, not for an upload in parts
                obstore.put(self._objects, _inside(path), data, mode="create", use_multipart=False)
            except AlreadyExistsError:
                return False
        return True

    def delete(self, path: str) -> None:
        """See :class:`Store`."""
        with self._talking("deleted", path), suppress(FileNotFoundError):
            obstore.delete(self._objects, _inside(path))

    def names(self, folder: str) -> list[str]:
        """See :class:`Store`."""
        with self._talking("listed", folder):
            found = obstore.list(self._objects, _inside(folder) or None).collect()
        return sorted(str(each["path"]) for each in found)

    def folders(self, folder: str) -> list[str]:
        """See :class:`Store`."""
        with self._talking("listed", folder):
            found = obstore.list_with_delimiter(self._objects, _inside(folder) or None)
        return sorted(PurePosixPath(prefix).name for prefix in found["common_prefixes"])

    def place(self, source: Path, files: Sequence[str], folder: str) -> bool:
        """See :class:`Store`; an upload that was cut off goes on where it ended.

        All upload in the same order, so of two that are at it with different files the first to differ goes on, and the
        other one stops. Files that it leaves and the last one does not list are nobody's.
        """
        *rest, last = *sorted(files[:-1]), files[-1]
        for name in rest:
            path, data = f"{folder}/{name}", (source / name).read_bytes()
            if not self.create(path, data) and self.get(path) != data:
                raise RegistryError(
                    f"{self._url}/{path}: a version's files are written once, and this is of another bundle, which is "
                    f"being added or was cut off; choose another version, or delete {self._url}/{folder}"
                )
        return self.create(f"{folder}/{last}", (source / last).read_bytes())

    @contextmanager
    def _talking(self, done: str, path: str) -> Iterator[None]:
        try:
            yield
        except (BaseError, OSError, NotImplementedError) as error:
            raise RegistryError(
                f"{self._url}/{path}: cannot be {done}: {_first_line(error)}; see to the network, the bucket and the "
                "rights of its credentials"
            ) from error


def _client(env: Mapping[str, str]) -> ClientConfig:
    """What clients are made with. Given any option, obstore no longer reads from ``env`` whether TLS may be missing."""
    plain = any(env.get(f"{each}_ALLOW_HTTP", "").lower() == "true" for each in ("AWS", "AZURE", "GOOGLE"))
    return {**CLIENT, "allow_http": True} if plain else CLIENT


def _inside(path: str) -> str:
    """``path`` without a slash at its end; raises :class:`RegistryError` if it leads out of the registry."""
    if path.startswith("/") or ".." in path.split("/"):
        raise RegistryError(f"{path}: a path in a registry is relative and stays inside; correct it")
    return path.rstrip("/")


def _unless_missing(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error


def _first_line(error: BaseException) -> str:
    """An obstore error without its Rust source, which follows."""
    return str(error).split("\n", 1)[0]
