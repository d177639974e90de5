"""The state of one partition: its users' profiles and its open decisions, kept in one changelog.

One changelog, because what is written to it in order is kept in order: see :mod:`stream.feedback`. ``stream/table.py``
keeps one :class:`State` a partition behind Faust's table, replay keeps one in all.
"""

from __future__ import annotations

from collections.abc import Sequence

from model.usecase import UseCase
from stream.feedback import PREFIX, Pending
from stream.layout import Layout
from stream.profiles import Profiles


class State:
    """Profiles and open decisions of one of ``partitions``; ``max_open`` decisions at most."""

    def __init__(
        self, usecase: UseCase, max_open: int, partitions: int = 1, layout: Layout | None = None
    ) -> None:
        self.profiles = Profiles(usecase, layout)
        self.pending = Pending(usecase, max_open, partitions)

    @property
    def last_offset(self) -> int:
        """The highest source offset that is in the state; -1 for none."""
        return max(self.profiles.last_offset, self.pending.mark.offset)

    def restore(self, keys: Sequence[bytes], values: Sequence[bytes | None]) -> None:
        """Apply changelog records in their order; raises :class:`stream.profiles.ChangelogError`."""
        ours = [key.startswith(PREFIX) for key in keys]
        if any(ours):
            self.pending.restore(*_where(keys, values, ours, wanted=True))
            keys, values = _where(keys, values, ours, wanted=False)
        self.profiles.restore(keys, values)


def _where(
    keys: Sequence[bytes], values: Sequence[bytes | None], ours: Sequence[bool], *, wanted: bool
) -> tuple[list[bytes], list[bytes | None]]:
    chosen = [position for position, found in enumerate(ours) if found is wanted]
    return [keys[position] for position in chosen], [values[position] for position in chosen]
