"""The pulse of a training job: its heartbeat, written again and again while whatever phase it is in goes on."""

from __future__ import annotations

import logging
import threading
import time
from types import TracebackType
from typing import Self

import msgspec

from deploy.registry import Registry, RegistryError
from retrain.spec import Heartbeat, Phase

EVERY_S = 2.0

log = logging.getLogger(__name__)


class Pulse:
    """Writes the last heartbeat it was given to ``path``, at once and every :data:`EVERY_S` seconds, in a thread of its own.

    A heartbeat that cannot be written is none: whoever waits for it decides what that means, and the job goes on.
    """

    def __init__(self, registry: Registry, path: str) -> None:
        self._registry, self._path = registry, path
        self._last = Heartbeat(at=time.time(), phase=Phase.STARTING)
        self._given, self._ended = threading.Event(), False
        self._thread = threading.Thread(target=self._beat, name="pulse", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        self._ended = True
        self._given.set()
        self._thread.join(EVERY_S)

    def __call__(self, heartbeat: Heartbeat) -> None:
        """This is what it is at now."""
        self._last = heartbeat
        self._given.set()

    def _beat(self) -> None:
        while not self._ended:
            self._given.clear()
            sign = msgspec.structs.replace(self._last, at=time.time())
            try:
                self._registry.write(self._path, msgspec.json.encode(sign))
            except RegistryError as error:
                log.warning("no heartbeat: %s", error)
            self._given.wait(EVERY_S)
