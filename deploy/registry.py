"""The registry: versions of the model, and the log of releases that says which one is live. A folder or an object store.

    versions/<version>/bundle/      as model/bundle.py has it; written once, the manifest last
    versions/<version>/gate.json    what the gate decided on it, by retrain
    releases/000000000001.json      each written once; the one with the highest number holds
    jobs/<id>/                      what the trainer and its jobs leave each other

Workers, the trainer, its jobs and ``eddyline models`` all go through a :class:`Registry`, on as many machines as reach the
store. None of them locks anything: a number of the log goes to whoever creates it first (:mod:`deploy.store`), and the
others judge their change again on what is released by then. The log has no gaps: never delete from it.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import shutil
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Self

import msgspec
from msgspec.structs import replace

from deploy import settings
from deploy.release import FORMAT, NOTHING, Placed, Release
from deploy.store import MARK, Folder, RegistryError, store_at
from model import bundle
from model.bundle import MANIFEST, BundleError, Fault, Manifest
from model.durable import sync

__all__ = ["Registry", "RegistryError", "Version"]

VERSIONS, RELEASES = "versions", "releases"
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")
_NUMBER = re.compile(RELEASES + r"/(\d{12})\.json")


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """A version in the registry. ``created`` is the manifest's; ``gate`` what the gate decided, JSON, None if nothing."""

    version: str
    digest: str
    created: str
    manifest: Manifest
    gate: bytes | None

    @property
    def placed(self) -> Placed:
        """The version as a release names it."""
        return Placed(self.version, self.digest)


class Registry:
    """The registry at ``url``; threads may share one. Nothing is read or written until it is asked for.

    ``cache`` is the folder that :meth:`fetch` copies versions of an object store to, None for a temporary one.
    """

    def __init__(self, url: str, cache: Path | None = None) -> None:
        self._store = store_at(url)
        # so that another process finds it, wherever that runs
        self.url = str(self._store.root) if isinstance(self._store, Folder) else url
        self._given = cache
        self._temporary: _Temporary | None = None
        self._last = NOTHING  # the newest that this object has seen; the log is read on from there

    @classmethod
    def of(cls, place: settings.Registry) -> Self:
        """The registry that the settings' group ``place`` names."""
        return cls(place.url, Path(place.cache) if place.cache else None)

    def check(self) -> None:
        """Raise :class:`RegistryError` unless the registry takes files."""
        probe = f"probe-{secrets.token_hex(4)}"
        if not self._store.create(probe, b"eddyline") or self._store.create(probe, b"eddyline"):
            raise RegistryError(
                f"{self.url}: a registry must know create-only writes, and this one does not; use another"
            )
        self._store.delete(probe)

    def add(self, directory: Path) -> Placed:
        """Verify the bundle at ``directory`` and copy it in; nothing happens if it is there already.

        Raises :class:`RegistryError` for a damaged one, and if another bundle has that version.
        """
        try:
            read = bundle.read(directory)
            bundle.verify(read)
        except BundleError as error:
            raise RegistryError(str(error), error.fault) from error
        version = _checked(read.manifest.version)
        self._store.place(directory, [*read.manifest.files, MANIFEST], _bundle(version))
        there = self.version(version)  # whether we wrote it or another did
        if there is None or there.digest != read.digest:
            raise RegistryError(
                f"{self.url}: a version is written once, and {version} is another bundle there"
                f"{f' (of {there.created})' if there else ''}; choose another version"
            )
        return there.placed

    def versions(self) -> list[Version]:
        """The versions that can be read, by the time of their creation."""
        found = []
        for name in self.version_names():
            try:
                version = self.version(name)
            except RegistryError:
                continue  # whoever asks for this one is told
            if version is not None:
                found.append(version)
        return sorted(found, key=lambda each: (each.created, each.version))

    def version_names(self) -> list[str]:
        """The names of all versions, those included that cannot be read or are not whole yet."""
        return self._store.folders(VERSIONS)

    def version(self, name: str) -> Version | None:
        """The version ``name``, None where there is none. Raises :class:`RegistryError` if it cannot be understood."""
        path = f"{_bundle(_checked(name))}/{MANIFEST}"
        raw = self._store.get(path)
        if raw is None:
            return None
        try:
            manifest = bundle.manifest_of(raw, f"{self.url}/{path}")
        except BundleError as error:
            raise RegistryError(str(error), error.fault) from error
        return Version(
            version=name,
            digest=hashlib.sha256(raw).hexdigest(),
            created=manifest.created,
            manifest=manifest,
            gate=self._store.get(f"{VERSIONS}/{name}/gate.json"),
        )

    def fetch(self, placed: Placed) -> Path:
        """The folder on this machine of the bundle that ``placed`` names: in place, or a copy of an object store's.

        Its manifest is the one that was released. Loading it checks the files (:class:`model.scorer.LiteRTScorer`).
        Raises :class:`RegistryError` if the version is missing, or is another one.
        """
        folder = _bundle(_checked(placed.version))
        if isinstance(self._store, Folder):
            directory = self._store.root / folder
            _same(directory, placed)
            return directory
        directory = self._cache() / f"{placed.version}-{placed.digest[:16]}"
        if directory.exists():
            try:
                bundle.verify(bundle.read(directory))
                _same(directory, placed)
            except (BundleError, RegistryError):  # damaged here: it is fetched again
                shutil.rmtree(directory, ignore_errors=True)
            else:
                return directory
        self._copy(placed, folder, directory)
        return directory

    def latest(self) -> Release:
        """The release that holds, :data:`~deploy.release.NOTHING` if there is none. Costs one read if none is new.

        Raises :class:`RegistryError` if the newest one cannot be read or understood.
        """
        last = self._last
        if last.number == 0:
            numbers = self._numbers()
            last = self._release(numbers[-1]) if numbers else NOTHING
        while (following := self._store.get(_path(last.number + 1))) is not None:
            last = self._understood(last.number + 1, following)
        self._last = last
        return last

    def releases(self) -> list[Release]:
        """All releases, oldest first. Raises :class:`RegistryError` at one that cannot be understood."""
        return [self._release(number) for number in self._numbers()]

    def publish(self, change: Callable[[Release], Release]) -> Release:
        """Publish what ``change`` makes of the release that holds, and return it; durable on return.

        Where another was quicker, ``change`` is asked again, with that one: it must be pure. What it raises, as
        :class:`~deploy.transitions.Refused`, ends this; if it returns what it was given nothing is published.
        """
        while True:
            now = self.latest()
            following = change(now)
            if following == now:
                return now
            following = replace(following, number=now.number + 1, nonce=secrets.token_hex(8))
            path, data = _path(following.number), msgspec.json.format(msgspec.json.encode(following))
            # A store may write, lose its answer, and refuse its own retry; the nonce tells that from another's.
            if self._store.create(path, data) or self._store.get(path) == data:
                self._last = following
                return following

    def read(self, path: str) -> bytes | None:
        """The small file at ``path``, such as ``jobs/<id>/result.json``; None where there is none."""
        return self._store.get(path)

    def write(self, path: str, data: bytes) -> None:
        """Write ``path``, over what was there: whoever reads it gets the old one or the new one, whole."""
        self._store.put(path, data)

    def create(self, path: str, data: bytes) -> bool:
        """Write ``path`` unless it is there; whether this call did.

        An object store that lost its own answer may say False to who wrote it: if that matters, look at what is there.
        """
        return self._store.create(path, data)

    def names(self, prefix: str) -> list[str]:
        """The paths of all files below the folder ``prefix``, at any depth, in order."""
        return self._store.names(prefix)

    def delete(self, prefix: str) -> None:
        """Delete all files below the folder ``prefix`` of a job; versions and releases are not deleted."""
        if not prefix.startswith("jobs/"):
            raise RegistryError(f"{prefix}: only what jobs leave is deleted; give a folder in jobs/")
        for name in self.names(prefix):
            self._store.delete(name)

    def close(self) -> None:
        """Delete the temporary cache, if there is one; it goes with the process otherwise."""
        if self._temporary is not None:
            self._temporary.cleanup()
            self._temporary = None

    def _cache(self) -> Path:
        if self._given is not None:
            return self._given
        if self._temporary is None:
            self._temporary = _Temporary()
        return self._temporary.path

    def _copy(self, placed: Placed, folder: str, directory: Path) -> None:
        """Copy the bundle in ``folder`` to ``directory``, which takes its name when all of it is right."""
        temporary = directory.with_name(f".{directory.name}.{secrets.token_hex(4)}{MARK}")
        try:
            raw = self._got(f"{folder}/{MANIFEST}")
            _keep(temporary, MANIFEST, raw)
            _same_digest(hashlib.sha256(raw).hexdigest(), f"{self.url}/{folder}", placed)
            for name in bundle.manifest_of(raw, f"{self.url}/{folder}/{MANIFEST}").files:
                _keep(temporary, name, self._got(f"{folder}/{name}"))
            bundle.verify(bundle.read(temporary))
            try:
                temporary.rename(directory)
            except OSError:
                if not directory.exists():  # another process was first, with the same
                    raise
            sync(directory.parent)
        except BundleError as error:
            raise RegistryError(
                f"{self.url}/{folder}: the version is damaged there: {error}", error.fault
            ) from error
        except OSError as error:
            raise RegistryError(
                f"{directory}: a version cannot be copied here: {error.strerror or error}; give registry.cache a folder "
                "that takes files"
            ) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _got(self, path: str) -> bytes:
        data = self._store.get(path)
        if data is None:
            raise RegistryError(
                f"{self.url}/{path}: the version's file is missing; add the version again or promote another"
            )
        return data

    def _numbers(self) -> list[int]:
        return [int(found[1]) for name in self._store.names(RELEASES) if (found := _NUMBER.fullmatch(name))]

    def _release(self, number: int) -> Release:
        raw = self._store.get(_path(number))
        if raw is None:
            raise RegistryError(f"{self.url}/{_path(number)}: this release was deleted; put it back")
        return self._understood(number, raw)

    def _understood(self, number: int, raw: bytes) -> Release:
        where = f"{self.url}/{_path(number)}"
        try:
            form = msgspec.json.decode(raw, type=_Format).format
            if form > FORMAT:
                raise RegistryError(
                    f"{where}: this program reads releases of format {FORMAT}, got {form}; upgrade it",
                    Fault.FORMAT,
                )
            release = msgspec.json.decode(raw, type=Release)
        except msgspec.DecodeError as error:
            raise RegistryError(
                f"{where}: not a release: {error}; put back what was written there, or, if it is the last one, move it "
                "away: the one before it holds then",
                Fault.CORRUPT,
            ) from error
        if release.number != number:
            raise RegistryError(
                f"{where}: a release stands under its number, got {release.number}; put it back",
                Fault.CORRUPT,
            )
        return release


class _Temporary:
    """A folder that goes when it is told to, or with the process; unlike ``TemporaryDirectory`` it is no mistake to leave it."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="eddyline-models-"))
        self.cleanup = weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


class _Format(msgspec.Struct):
    format: int


def _bundle(version: str) -> str:
    return f"{VERSIONS}/{version}/bundle"


def _path(number: int) -> str:
    return f"{RELEASES}/{number:012d}.json"


def _checked(version: str) -> str:
    if not _VERSION.fullmatch(version):
        raise RegistryError(
            f"a version is named by up to 100 letters, digits and `.-_+`, got {version!r}; choose another name"
        )
    return version


def _same(directory: Path, placed: Placed) -> None:
    """Raise :class:`RegistryError` unless the bundle at ``directory`` is the one that ``placed`` names."""
    try:
        digest = bundle.read(directory).digest
    except BundleError as error:
        raise RegistryError(str(error), error.fault) from error
    _same_digest(digest, str(directory), placed)


def _same_digest(digest: str, where: str, placed: Placed) -> None:
    if digest != placed.digest:
        raise RegistryError(
            f"{where}: version {placed.version} was released with the digest {placed.digest[:12]}…, got {digest[:12]}…: "
            "it was changed since; put back the bundle that was released, or promote another version",
            Fault.DIGEST,
        )


def _keep(directory: Path, name: str, data: bytes) -> None:
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        raise BundleError(f"{name}: a bundle's files lie inside it; train a new version")
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    sync(path)
