"""Verdicts as they were written, read from the ``drift`` topic or from a file. ``eddyline drift`` calls."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from deploy.consumer import ConsumerError, read_to_end
from deploy.settings import Settings
from deploy.topics import TopicError, partition_counts
from detectors.verdict import Verdict

_decode = msgspec.json.Decoder(Verdict).decode


class ReadError(ValueError):
    """The verdicts cannot be read: why, and what to do."""


def from_topic(settings: Settings) -> list[Verdict]:
    """All verdicts of the ``drift`` topic; raises :class:`ReadError`."""
    topic = settings.topics.drift
    try:
        if topic not in partition_counts(settings):
            raise ReadError(f"there is no topic {topic}; create it with `eddyline topics`")
        values = [message.value() for message in read_to_end(settings.kafka, topic)]
    except (TopicError, ConsumerError) as error:
        raise ReadError(str(error)) from error
    return _decoded(topic, (value for value in values if isinstance(value, bytes)))


def from_file(path: Path) -> list[Verdict]:
    """The verdicts of a file (JSON Lines); raises :class:`ReadError`."""
    try:
        return _decoded(str(path), (line for line in path.read_bytes().splitlines() if line.strip()))
    except OSError as error:
        raise ReadError(f"{path}: cannot be read: {error.strerror}; correct the path") from error


def _decoded(where: str, values: Iterable[bytes]) -> list[Verdict]:
    found = []
    for number, value in enumerate(values, 1):
        try:
            found.append(_decode(value))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ReadError(
                f"{where}: record {number} is not a verdict: {error}; name what `eddyline monitor` or "
                "`eddyline replay --drift` wrote"
            ) from error
    return found
