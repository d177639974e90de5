"""Checkpoints: what fitting needs to go on after its process was killed, as if nothing had happened.

Written and read by :mod:`model.fitting` after and before an epoch: one file of plain arrays, never pickled, that is
replaced whole, so that a kill at any moment leaves the one before or the one after.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

Weights = list[NDArray[Any]]


class CheckpointError(Exception):
    """A checkpoint cannot be gone on from: where, the rule, what came, what to do."""


class Epoch(msgspec.Struct, frozen=True, kw_only=True):
    """One line of progress: the mean ``loss`` while fitting, ``seconds`` since this process began to fit.

    Without a validation part, as when the live model is fitted, ``validation_log_loss`` is None.
    """

    epoch: int
    loss: float
    validation_log_loss: float | None
    best: bool
    seconds: float

    @property
    def fit(self) -> Literal["validated", "live"]:
        """Which of the two fits this is an epoch of."""
        return "live" if self.validation_log_loss is None else "validated"


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """The state after the last of ``epochs``; ``best_epoch`` counts from 1 and is 0 while there is none.

    ``weights`` are gone on from, and ``average`` is what they were of late; the best ones are such an average.
    """

    epochs: list[Epoch]
    best_epoch: int
    weights: Weights
    average: Weights
    optimizer: Weights
    best_weights: Weights


class _Head(msgspec.Struct):
    digest: str
    epochs: list[Epoch]
    best_epoch: int


_PARTS = ("weights", "average", "optimizer", "best_weights")


def digest_of(values: Iterable[object]) -> str:
    """The SHA-256 of what a fit depends on: arrays by their bytes, anything else as JSON."""
    total = hashlib.sha256()
    for value in values:
        if isinstance(value, np.ndarray):
            total.update(f"{value.dtype}{value.shape}".encode() + np.ascontiguousarray(value).tobytes())
        else:
            total.update(msgspec.json.encode(value))
    return total.hexdigest()


def write(path: Path, checkpoint: Checkpoint, digest: str) -> None:
    """Put ``checkpoint`` of the fit ``digest`` in the place of what is at ``path``, at once."""
    head = _Head(digest, checkpoint.epochs, checkpoint.best_epoch)
    arrays = {"head": np.frombuffer(msgspec.json.encode(head), np.uint8)}
    for part in _PARTS:
        arrays |= {f"{part}_{i}": array for i, array in enumerate(getattr(checkpoint, part))}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".writing")
    with temporary.open("wb") as file:
        np.savez(file, **arrays)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def read(path: Path, digest: str) -> Checkpoint | None:
    """The checkpoint at ``path``, None if there is none.

    Raises :class:`CheckpointError` when it cannot be read, or is of a fit other than ``digest``.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            head = msgspec.json.decode(arrays["head"].tobytes(), type=_Head)
            names = {part: sum(name.startswith(f"{part}_") for name in arrays.files) for part in _PARTS}
            parts = {part: [arrays[f"{part}_{i}"] for i in range(n)] for part, n in names.items()}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, msgspec.MsgspecError) as error:
        raise CheckpointError(
            f"{path}: not a readable checkpoint: {error}; remove it to fit from the start"
        ) from error
    if head.digest != digest:
        raise CheckpointError(
            f"{path}: a checkpoint is gone on from with the examples, features and settings it was made with; these "
            f"are others ({digest[:12]}…, not {head.digest[:12]}…); name another folder, or remove it to fit from the start"
        )
    return Checkpoint(epochs=head.epochs, best_epoch=head.best_epoch, **parts)
