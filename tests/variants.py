"""Versions that differ in known ways from the tests' trained one: other scores, a fault, a row that is not a number."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from deploy import transitions
from deploy.registry import Registry
from deploy.release import Correction, Placed, Release
from model.bundle import MODEL, read, read_golden, write_golden, write_manifest

BIAS, EMBEDDING = (
    "logit_1/Add",
    "GatherV2/ReadVariableOp",
)  # tensors of the network, by the ends of their names


def variant(bundle: Path, folder: Path, version: str, shift: float = 0.0) -> Path:
    """A copy of ``bundle`` below ``folder`` whose scores have ``shift`` more log-odds; a good bundle of ``version``."""
    directory = Path(shutil.copytree(bundle, folder / version))
    old = _tensor(directory, BIAS)
    _patch(directory, old, old + np.float32(shift))
    golden = read_golden(read(directory))
    odds = golden.score.astype(np.float64) / (1 - golden.score.astype(np.float64)) * np.exp(shift)
    score = (odds / (1 + odds)).astype(np.float32)
    write_golden(directory, msgspec.structs.replace(golden, score=score))
    return signed(directory, version)


def poisoned(bundle: Path, folder: Path, version: str, row: int) -> Path:
    """A copy of ``bundle`` in which ``row`` of the embeddings is not a number; its golden rows do not look it up."""
    directory = Path(shutil.copytree(bundle, folder / version))
    old = _tensor(directory, EMBEDDING)
    new = old.copy()
    new[row] = np.nan
    _patch(directory, old, new)
    return signed(directory, version)


def signed(directory: Path, version: str) -> Path:
    """Let a manifest vouch for whatever ``directory`` now holds, under the name ``version``."""
    write_manifest(directory, msgspec.structs.replace(read(directory).manifest, version=version))
    return directory


def publish(registry: Registry, change: Callable[..., Release], *values: object, **given: object) -> Release:
    """Publish what ``change``, of :mod:`deploy.transitions`, makes of the newest release."""
    why = {"reason": "a test", "by": "tests", "created": datetime.now(UTC).isoformat()}
    return registry.publish(lambda now: change(now, *values, **given, **why))


def promoted(registry: Registry, bundle: Path, share: float = 0.25) -> Release:
    """The release by which ``bundle``, added if need be, is live."""
    return publish(registry, transitions.promote, registry.add(bundle), share=share)


def correction(before: float, now: float) -> Correction:
    """A correction from one share of positives to another."""
    return Correction(before=before, now=now, low=now / 2, high=(1 + now) / 2, verdict="v1")


def planted(registry: Registry, directory: Path) -> Placed:
    """Place a bundle that :meth:`Registry.add` would refuse, as whoever goes past all checks would."""
    bundle = read(directory)
    target = Path(registry.url, "versions", bundle.manifest.version, "bundle")
    shutil.copytree(directory, target)
    return Placed(bundle.manifest.version, bundle.digest)


def _tensor(directory: Path, name: str) -> NDArray[np.float32]:
    """The weights of the tensor whose name ends in ``name``; results, of more dimensions, may be called so as well."""
    interpreter = Interpreter(model_content=(directory / MODEL).read_bytes())
    interpreter.allocate_tensors()
    found = [each for each in interpreter.get_tensor_details() if each["name"].endswith(name)]
    least = min(found, key=lambda each: len(each["shape"]))
    weights: NDArray[np.float32] = interpreter.get_tensor(least["index"])
    return weights.copy()


def _patch(directory: Path, old: NDArray[np.float32], new: NDArray[np.float32]) -> None:
    content = (directory / MODEL).read_bytes()
    assert content.count(old.tobytes()) == 1
    (directory / MODEL).write_bytes(content.replace(old.tobytes(), new.tobytes()))
