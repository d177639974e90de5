"""A model bundle: one version of the model as a directory of files that prove themselves whole.

Written once by :mod:`model.training`, never changed after; read by :mod:`model.scorer`, by the registry, which
copies and announces it, and by the gate. Nothing here needs TensorFlow, and nothing is ever unpickled.

==================  =====================================================================================
``model.tflite``    what workers score with
``saved_model/``    the same network for TensorFlow Serving and other TensorFlow programs; the reference
``model.keras``     the same network to go on training from
``features.json``   the :class:`~model.features.FeatureSpec` that the network reads
``golden.npz``      real rows and the scores Keras gave them, which every loader must get again
``reference.npz``   real rows with labels that the drift monitor compares with (:mod:`model.reference`)
``manifest.json``   version, metrics, bucket sizes, and size and SHA-256 of every other file
==================  =====================================================================================
"""

from __future__ import annotations

import hashlib
import secrets
import shutil
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from model.durable import sync
from model.features import FeatureSpec, Float32, Int32

FORMAT = 3  # of the directory; raised when an older reader could not understand a newer bundle
BUCKETS = (1, 16, 64, 256, 1024)  # batch sizes, rows; each costs one interpreter
MODEL, SAVED_MODEL, KERAS = "model.tflite", "saved_model", "model.keras"
FEATURES, GOLDEN, MANIFEST = "features.json", "golden.npz", "manifest.json"
REFERENCE = "reference.npz"
AGAIN = "fetch the bundle again, or train a new version"  # what to do about a damaged one


class Fault(StrEnum):
    """Why a bundle cannot be used, as it is counted."""

    UNREADABLE = "unreadable"  # it is not there, or the disk does not give it: that may pass
    FORMAT = "format"  # of a format that this program does not know
    CORRUPT = "corrupt"  # a file is not what a file of its name must be
    DIGEST = "digest"  # a file is not the one that the manifest names, or the manifest not the one asked for
    FEATURES = "features"  # it reads other features than the use case computes
    GOLDEN = "golden"  # the golden rows do not get the scores that they must
    NOT_FINITE = "not-finite"  # a score is not a number
    BATCHES = "batches"  # a row gets other bits in other batches


class BundleError(Exception):
    """A bundle cannot be used or written: where, the rule, what came instead, what to do."""

    def __init__(self, message: str, fault: Fault = Fault.CORRUPT) -> None:
        super().__init__(message)
        self.fault = fault


class FileDigest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Size in bytes and SHA-256 (hexadecimal) of one file."""

    size: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a bundle says of itself. ``created`` is ISO 8601; ``files`` are keyed by path within the bundle.

    ``metrics`` are those of a model that never saw the validation part; the model in the bundle was fitted to that,
    too (:mod:`model.training`). ``window`` has the times of both parts, ISO 8601.
    """

    format: int = FORMAT
    usecase: str
    version: str
    created: str
    metrics: dict[str, float]
    window: dict[str, str] = {}
    buckets: tuple[int, ...]
    files: dict[str, FileDigest] = {}  # filled in by `write_manifest`


class Golden(msgspec.Struct, frozen=True):
    """Rows ``numeric`` float32 [n, F] and ``categorical`` int32 [n, C], and Keras's ``score`` float32 [n] of each."""

    numeric: Float32
    categorical: Int32
    score: Float32


class Bundle(msgspec.Struct, frozen=True):
    """A bundle on disk, as far as its manifest and spec go; :func:`verify` checks the files themselves.

    ``digest`` is the SHA-256 of the manifest, and so, by the digests in it, of the whole bundle.
    """

    directory: Path
    manifest: Manifest
    spec: FeatureSpec
    digest: str


def check_new(directory: Path) -> None:
    """Raise :class:`BundleError` when something is at ``directory`` already: a bundle is never written over."""
    if directory.exists():
        raise BundleError(f"{directory}: a bundle is written once, and this exists; choose another version")


@contextmanager
def writing(directory: Path) -> Iterator[Path]:
    """Yield a temporary sibling of ``directory`` to write into; it takes that name when the block ends well.

    A half-written bundle is never seen: until then, or if the block raises, there is no ``directory``.
    """
    check_new(directory)
    temporary = directory.with_name(f".{directory.name}.{secrets.token_hex(4)}.writing")
    temporary.mkdir(parents=True)
    try:
        yield temporary
        try:
            temporary.rename(directory)
        except OSError as error:  # another writer was first
            raise BundleError(
                f"{directory}: cannot take this name: {error}; choose another version"
            ) from error
        sync(directory.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_features(directory: Path, spec: FeatureSpec) -> None:
    """Write the spec of the network in ``directory``."""
    (directory / FEATURES).write_bytes(msgspec.json.format(msgspec.json.encode(spec)))


def write_golden(directory: Path, golden: Golden) -> None:
    """Write the golden rows of the network in ``directory``."""
    np.savez_compressed(directory / GOLDEN, **msgspec.structs.asdict(golden))


def write_manifest(directory: Path, manifest: Manifest) -> Manifest:
    """Write ``manifest`` with the files that lie in ``directory``; the last step, after which nothing may change.

    Files and folders are flushed to the disk, so that a power cut cannot leave a manifest without its files.
    """
    files = {name: _digest(directory / name) for name in _listed(directory)}
    manifest = msgspec.structs.replace(manifest, files=files, format=FORMAT)
    (directory / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
    for path in (*directory.rglob("*"), directory):
        sync(path)
    return manifest


def read(directory: Path) -> Bundle:
    """The bundle at ``directory``; raises :class:`BundleError` when its manifest or spec cannot be understood."""
    path = directory / MANIFEST
    raw = _bytes(path)
    manifest = manifest_of(raw, path)
    path = directory / FEATURES
    spec = _decoded(_bytes(path), FeatureSpec, path, "a feature spec")
    return Bundle(directory, manifest, spec, hashlib.sha256(raw).hexdigest())


def manifest_of(raw: bytes, where: object) -> Manifest:
    """The manifest in the file ``raw``, which stands at ``where``; raises :class:`BundleError` as :func:`read` does."""
    form = _decoded(raw, _Format, where, "a manifest").format
    if form != FORMAT:
        advice = "upgrade it" if form > FORMAT else "train a new version"
        raise BundleError(
            f"{where}: this program reads bundles of format {FORMAT}, got {form}; {advice}", Fault.FORMAT
        )
    manifest = _decoded(raw, Manifest, where, "a manifest")
    sizes = list(manifest.buckets)
    if not sizes or sizes != sorted({size for size in sizes if size > 0}):
        raise BundleError(f"{where}: buckets are sizes in rising order, got {sizes}; train a new version")
    return manifest


def verify(bundle: Bundle) -> None:
    """Raise :class:`BundleError` unless the files are exactly those of the manifest, byte for byte."""
    listed, found = bundle.manifest.files, set(_listed(bundle.directory))
    required = {MODEL, FEATURES, GOLDEN, REFERENCE}
    if odd := sorted(found.symmetric_difference(listed) | (required - found)):
        what = "is not in it" if odd[0] in found else "is missing"
        raise BundleError(
            f"{bundle.directory / odd[0]}: a bundle holds what its manifest lists; this {what}; {AGAIN}",
            Fault.DIGEST,
        )
    for name, expected in listed.items():
        actual = _digest(bundle.directory / name)
        if actual != expected:
            raise BundleError(
                f"{bundle.directory / name}: the manifest says {expected.size} bytes with SHA-256 {expected.sha256[:12]}…, "
                f"got {actual.size} bytes with {actual.sha256[:12]}…; {AGAIN}",
                Fault.DIGEST,
            )


def read_golden(bundle: Bundle) -> Golden:
    """The golden rows of ``bundle``, checked against its spec."""
    path = bundle.directory / GOLDEN
    golden = Golden(*read_arrays(path, "golden rows", Golden.__struct_fields__))
    n = len(golden.score)
    expected = [(n, len(bundle.spec.numeric)), (n, len(bundle.spec.categorical)), (n,)]
    shapes = [golden.numeric.shape, golden.categorical.shape, golden.score.shape]
    if shapes != expected or n == 0:
        raise BundleError(
            f"{path}: golden rows have the shapes {expected}, at least one row, got {shapes}; {AGAIN}"
        )
    return golden


def read_arrays(path: Path, what: str, names: Sequence[str]) -> list[NDArray[Any]]:
    """The arrays ``names`` of the archive at ``path``, never unpickled; a :class:`BundleError` calls them ``what``."""
    try:
        # opened here, because NumPy leaves the file of a broken archive open
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return [arrays[name] for name in names]
    except _DAMAGE as error:
        # an error of the system has a number, and says nothing of the file
        passing = isinstance(error, OSError) and error.errno is not None
        fault = Fault.UNREADABLE if passing else Fault.CORRUPT
        raise BundleError(f"{path}: {what} cannot be read: {error}; {AGAIN}", fault) from error


def check_spec(bundle: Bundle, expected: FeatureSpec) -> None:
    """Raise :class:`BundleError` naming each column in which the model and the use case's ``expected`` spec differ."""
    has, wants = _columns(bundle.spec), _columns(expected)
    found = [
        f"`{name}` is {has.get(name, 'absent')} in the model and {wants.get(name, 'absent')} in the use case"
        for name in sorted(has.keys() | wants.keys())
        if has.get(name) != wants.get(name)
    ]
    if not found and bundle.spec != expected:
        found.append(f"the order is {list(has)} in the model and {list(wants)} in the use case")
    if found:
        raise BundleError(
            f"{bundle.directory}: model {bundle.manifest.version} reads other features than the use case computes: "
            f"{'; '.join(found)}; train a new version with this use case",
            Fault.FEATURES,
        )


_T = TypeVar("_T")
# What NumPy and zipfile raise at a file that is no archive, or not whole: TypeError if it is a single array,
# RuntimeError if a bit says that it is encrypted.
_DAMAGE = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    EOFError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
)


class _Format(msgspec.Struct):
    format: int


def _columns(spec: FeatureSpec) -> dict[str, str]:
    """What each column of ``spec`` is, in words, by name."""
    categories = {column.name: f"a category of {column.buckets} buckets" for column in spec.categorical}
    return dict.fromkeys(spec.numeric, "numeric") | categories


def _decoded(raw: bytes, kind: type[_T], where: object, what: str) -> _T:
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.DecodeError as error:
        raise BundleError(f"{where}: not {what}: {error}; {AGAIN}") from error


def _listed(directory: Path) -> list[str]:
    """Every entry below ``directory`` except folders and the manifest, as sorted paths within it."""
    below = (path for path in directory.rglob("*") if path.is_symlink() or not path.is_dir())
    return sorted(name for path in below if (name := path.relative_to(directory).as_posix()) != MANIFEST)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror}; {AGAIN}", Fault.UNREADABLE) from error


def _digest(path: Path) -> FileDigest:
    if path.is_symlink() or not path.is_file():
        raise BundleError(f"{path}: a bundle holds plain files only; {AGAIN}")
    content = _bytes(path)
    return FileDigest(len(content), hashlib.sha256(content).hexdigest())
