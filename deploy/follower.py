"""Following the registry: a thread that brings each release to life here, soon after it is announced.

A worker makes one with :func:`follow`, whose first look comes before the worker's first event. The registry alone says what
is live: a record of the ``models`` topic only says *look now*, and without one the thread looks every ``registry.poll_s``.
Kafka or the registry may be away: what is live goes on scoring.
"""

from __future__ import annotations

import logging
import threading
import time
from datetime import datetime

from confluent_kafka import OFFSET_END, Consumer, KafkaException, TopicPartition

from deploy import metrics
from deploy.hotswap import Look, Refusal, Swapper
from deploy.live import Live
from deploy.registry import Registry, RegistryError
from deploy.settings import Settings, kafka_client
from model.usecase import UseCase

POLL_S = 0.5  # longest wait for an announcement, and so until the thread hears that it is to stop

log = logging.getLogger(__name__)


def follow(settings: Settings, usecase: UseCase) -> Follower:
    """A follower of ``settings.registry`` that has looked once and goes on looking in its thread.

    No model is no error, since the first may come later; but it may also be a wrong URL, and so it is told.
    """
    registry = settings.registry
    swapper = Swapper(Registry.of(registry), usecase)
    follower = Follower(swapper, settings)
    follower.look()
    if follower.source.current.model is None:
        log.warning(
            "%s: there is no released model that can score here: decisions get their priors until there is one; if there should "
            "be one, correct registry.url, or look at `eddyline models log`",
            registry.url,
        )
    follower.start()
    return follower


class Follower:
    """Looks at the registry with ``source``, shows in metrics what follows, and logs each failure once."""

    def __init__(self, source: Swapper, settings: Settings) -> None:
        self.source = source
        self._kafka, self._topic = settings.kafka, settings.topics.models
        self._poll_s = settings.registry.poll_s
        self._since = time.time()  # of releases before that, the lag says nothing
        self._telling = Telling()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="eddyline-follower", daemon=True)

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def stop(self) -> None:
        """End, at the latest after a look that is under way."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def look(self) -> None:
        """Look once; nothing that goes wrong is raised."""
        begin = time.perf_counter()
        try:
            found = self.source.look()
            live = self.source.current
            lag = None
            if found.swapped and (created := _seconds(live.release.created)) >= self._since:
                lag = max(0.0, time.time() - created)
            self._telling.looked(found, live, time.perf_counter() - begin, lag)
        except RegistryError as error:
            self._telling.unreadable(str(error))
        except Exception as error:
            self._telling.unreadable(f"{type(error).__name__}: {error}")
            log.exception("a look at the registry failed; what is live goes on scoring")

    def _run(self) -> None:
        consumer = self._consumer()
        due = time.monotonic() + self._poll_s
        try:
            while not self._stop.is_set():
                wait = max(0.0, min(POLL_S, due - time.monotonic()))
                if self._announced(consumer, wait) or time.monotonic() >= due:
                    self.look()
                    due = time.monotonic() + self._poll_s
        finally:
            if consumer is not None:
                consumer.close()

    def _consumer(self) -> Consumer | None:
        """A consumer of announcements from now on, outside any group; None if there can be none."""
        try:
            consumer = Consumer(
                kafka_client(self._kafka)
                | {
                    "group.id": "none",  # librdkafka wants a name; nothing is committed
                    "enable.auto.commit": False,
                    "allow.auto.create.topics": False,
                    "log_level": 0,
                }
            )
            consumer.assign([TopicPartition(self._topic, 0, OFFSET_END)])
        except KafkaException as error:
            log.warning(
                "%s cannot be read (%s): releases are noticed every %g s", self._topic, error, self._poll_s
            )
            return None
        return consumer

    def _announced(self, consumer: Consumer | None, wait: float) -> bool:
        """Whether a release is announced within ``wait`` seconds; errors pass, or the next look by the clock does."""
        if consumer is None:
            self._stop.wait(wait)
            return False
        try:
            messages = consumer.consume(100, wait)
        except KafkaException as error:
            log.warning("%s cannot be read: %s", self._topic, error)
            self._stop.wait(wait)
            return False
        if messages and all(message.error() is not None for message in messages):
            self._stop.wait(min(wait, POLL_S))  # an error may come at once, over and over
        return any(message.error() is None for message in messages)


class Telling:
    """Metrics and log of what looks find."""

    def __init__(self) -> None:
        self._shown: set[tuple[str, str]] = set()  # models and roles
        self._corrected: set[str] = set()
        self._last_error = ""

    def unreadable(self, error: str) -> None:
        """Count a look that failed; one that fails as the last did is not logged again."""
        metrics.REGISTRY_FAILURES.inc()
        if error != self._last_error:
            log.error("what is live goes on scoring: %s", error)
            self._last_error = error

    def looked(self, found: Look, live: Live, seconds: float, lag: float | None) -> None:
        """Tell what a look of ``seconds`` came to; ``lag`` s after its release, ``live`` is what scores now."""
        metrics.REGISTRY_RELEASE.set(found.newest)
        for refusal in found.refusals:
            metrics.SWAPS_REFUSED.labels(refusal.fault.value).inc()
            log.error("%s", _refused(refusal))
        if found.failures:
            self.unreadable("; ".join(map(_refused, found.failures)))
        else:
            self._last_error = ""
        self.show(live)
        if not found.swapped:
            return
        metrics.SWAPS.inc()
        metrics.SWAP_SECONDS.observe(seconds)
        if lag is not None:
            metrics.SWAP_LAG_SECONDS.observe(lag)
        names = ", ".join(f"{model.version} ({role})" for model, role in live.models) or "no model: priors"
        log.info("release %d is live: %s, after %.3f s", live.release.number, names, seconds)

    def show(self, live: Live) -> None:
        """Show what scores now, and no longer what did before."""
        metrics.RELEASE.set(live.release.number)
        shown = {(model.version, role) for model, role in live.models}
        for gone in self._shown - shown:
            metrics.MODEL_LIVE.remove(*gone)
        for model, role in live.models:
            metrics.MODEL_LIVE.labels(model.version, role).set(1)
        corrected = {
            model.version: model.correction.now for model, _ in live.models if model.correction is not None
        }
        for version in self._corrected - corrected.keys():
            metrics.CORRECTION.remove(version)
        for version, now in corrected.items():
            metrics.CORRECTION.labels(version).set(now)
        self._shown, self._corrected = shown, set(corrected)


def _refused(refusal: Refusal) -> str:
    place = "beside the live one" if refusal.beside else "live"
    return (
        f"release {refusal.release}: version {refusal.version}, which it wants {place}, does not score here "
        f"({refusal.fault.value}): {refusal.detail}"
    )


def _seconds(created: str) -> float:
    """Unix time of ISO 8601; 0 for what is not."""
    try:
        return datetime.fromisoformat(created).timestamp()
    except ValueError:
        return 0.0
