"""The process that scores while models are swapped: a contestant of ``make bench-swap``, started by ``swap.py``.

``python -m tests.bench.swap_child PLAN`` with a :class:`Plan` in JSON. Events are due at an even rate; every few
milliseconds those that are due are taken as one batch through the worker's own engine, and a decision's latency is from
when it was due until its batch is encoded. Phases in which models are swapped take turns with phases in which none is.
Nothing but the contestant is imported: ``eddyline`` never sees TensorFlow.
"""

from __future__ import annotations

import gc
import resource
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Protocol

import msgspec
import numpy as np

from deploy import metrics
from deploy.follower import Follower
from deploy.hotswap import Swapper
from deploy.live import Live, Model, Source
from deploy.registry import Registry
from deploy.settings import Events, Kafka, Settings
from deploy.settings import Registry as RegistrySettings
from model import usecase
from model.features import Float32, Int32
from stream.app import settle
from stream.engine import Engine
from stream.files import FileRecord
from stream.state import State
from tests.bench.workload import START_MS, USECASE, Workload

WAIT_S = Settings().engine.batch_wait_ms / 1000
LOOK_S = 0.05
PATIENCE_S = 30.0  # for the last swaps
EDDYLINE, SAVED_MODEL = "eddyline", "saved_model"


class Plan(msgspec.Struct, frozen=True):
    """What a contestant does: ``warm_s`` seconds and ``warm_swaps`` first, then ``pairs`` of an idle and a swapping phase."""

    contestant: str
    registry: str  # of eddyline
    bundles: tuple[str, str]  # of the other
    scores: str  # the file that every score goes to
    users: int
    rate: int  # events/s
    phase_s: float
    pairs: int
    swaps: int  # of a phase
    warm_s: float
    warm_swaps: int

    @property
    def events(self) -> int:
        """Events of the whole run."""
        return int(self.rate * (self.warm_s + 2 * self.pairs * self.phase_s))


class Measured(msgspec.Struct, frozen=True):
    """What came of it, latencies in ms."""

    idle: list[float]
    swapping: list[float]
    swaps: int
    swap_ms: float  # of a load, on average
    memory_growth_mib: float
    memory_mib: float
    failures: int  # batches that the model failed on


class Swapping(Protocol):
    """A contestant."""

    @property
    def source(self) -> Source:
        """What scores."""

    def swap(self) -> None:
        """Begin to bring the other version to life; returns at once."""

    def done(self) -> tuple[int, float]:
        """Swaps that are done, and the seconds that they took."""


class Eddyline:
    """The worker's own: a follower's thread looks at the registry, to which another process publishes when it is told to."""

    def __init__(self, plan: Plan) -> None:
        declared = usecase.load(USECASE)
        settings = Settings(
            kafka=Kafka(bootstrap_servers="127.0.0.1:1"),  # no broker: the registry alone is looked at
            registry=RegistrySettings(url=plan.registry, poll_s=LOOK_S),
        )
        self.source = Swapper(Registry(plan.registry), declared)
        follower = Follower(self.source, settings)
        follower.look()
        follower.start()

    def swap(self) -> None:
        """Ask for a release."""
        print("publish", flush=True)  # noqa: T201 — to the parent

    def done(self) -> tuple[int, float]:
        """As the metrics have it."""
        samples = {each.name: each.value for each in next(iter(metrics.SWAP_SECONDS.collect())).samples}
        return int(samples["eddyline_swap_seconds_count"]), samples["eddyline_swap_seconds_sum"]


class SavedModel:
    """TensorFlow in the process, and a SavedModel that a thread loads, warms and puts in the other's place.

    With what is known to help: Python's collector does not walk TensorFlow's own objects, and runs after each swap, without
    which old models stay.
    """

    def __init__(self, plan: Plan) -> None:
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
        self._bundles, self._next = [Path(each) for each in plan.bundles], 1
        self._done, self._seconds = 0, 0.0
        self._asked = threading.Semaphore(0)
        self.source = Source(Live(model=Model(self._load(self._bundles[0]))))
        threading.Thread(target=self._follow, daemon=True).start()

    def swap(self) -> None:
        """Let the thread load the other."""
        self._asked.release()

    def done(self) -> tuple[int, float]:
        """Counted by the thread."""
        return self._done, self._seconds

    def _follow(self) -> None:
        while True:
            self._asked.acquire()
            begin = time.perf_counter()
            scorer = self._load(self._bundles[self._next])
            rows = self.source.rows()
            if rows is not None:
                scorer.score(*rows)
            self.source.current = Live(model=Model(scorer))
            self._next = 1 - self._next
            del scorer
            gc.collect()
            self._seconds += time.perf_counter() - begin
            self._done += 1

    def _load(self, bundle: Path) -> _SavedModelScorer:
        return _SavedModelScorer(bundle)


class _SavedModelScorer:
    """The network of a bundle, run by TensorFlow."""

    def __init__(self, bundle: Path) -> None:
        import tensorflow as tf

        manifest = msgspec.json.decode((bundle / "manifest.json").read_bytes())
        self.version: str = manifest["version"]
        self._tf = tf
        self._model = tf.saved_model.load(str(bundle / "saved_model"))
        self._serve = self._model.signatures["serving_default"]
        _, inputs = self._serve.structured_input_signature
        self._names = {each.dtype.is_floating: name for name, each in inputs.items()}
        spec = msgspec.json.decode((bundle / "features.json").read_bytes())
        for size in (1, 16, 64, 256):
            numeric = np.zeros((size, len(spec["numeric"])), np.float32)
            self.score(numeric, np.zeros((size, len(spec["categorical"])), np.int32))

    def score(self, numeric: Float32, categorical: Int32) -> Float32:
        """Scores [n]."""
        given = {True: numeric, False: categorical}
        found = self._serve(**{name: self._tf.constant(given[kind]) for kind, name in self._names.items()})
        scores: Float32 = next(iter(found.values())).numpy().reshape(-1)
        return scores


class Pace:
    """Events that fall due at an even rate, and what becomes of them."""

    def __init__(self, plan: Plan, source: Source, out: BinaryIO) -> None:
        declared = usecase.load(USECASE)
        self._engine, self._state = Engine(declared, Events(), source), State(declared, 10_000_000)
        self._rate, self._out = plan.rate, out
        self._events = list(Workload(plan.events, plan.users).values())
        self._at = 0
        self._begin = 0.0

    @property
    def failures(self) -> int:
        """Batches that the model failed on."""
        return self._engine.scoring.failures

    def start(self) -> None:
        """Let time begin."""
        self._begin = time.perf_counter()

    def catch_up(self) -> None:
        """Let time go on from where the events are."""
        self._begin = time.perf_counter() - self._at / self._rate

    def run(self, seconds: float, swaps: int, swap: Callable[[], None], latencies: Latencies) -> None:
        """Score what falls due in the next ``seconds``, with as many calls of ``swap`` in even steps."""
        begin, end = self._at, min(self._at + int(seconds * self._rate), len(self._events))
        calls = [begin + int((each + 0.2) / swaps * (end - begin)) for each in range(swaps)]
        while self._at < end:
            due = min(end, int((time.perf_counter() - self._begin) * self._rate))
            if due > self._at:
                self._batch(due, latencies)
                while calls and self._at >= calls[0]:
                    swap()
                    del calls[0]
            time.sleep(WAIT_S)

    def _batch(self, due: int, latencies: Latencies) -> None:
        """Take the events up to number ``due``, as the transport hands over what has come."""
        first = self._at
        records = [
            FileRecord(number, START_MS, key, value)
            for number, (key, value) in enumerate(self._events[first:due], first)
        ]
        self._at = due
        processed = self._engine.process(self._state, records, 1_800_000_000_000)
        now = time.perf_counter() - self._begin
        self._out.writelines(value + b"\n" for value in processed.values)
        # A decision's id ends in its event's number: when it was due.
        latencies.add([1000 * (now - int(score.id[-12:]) / self._rate) for score in processed.scores])


class Latencies:
    """Room for ``most`` latencies, taken at once: what is measured grows, and is not to be taken for a leak."""

    def __init__(self, most: int) -> None:
        self._room = np.full(most, -1.0)
        self._n = 0

    def add(self, found: list[float]) -> None:
        """Add some."""
        self._room[self._n : self._n + len(found)] = found
        self._n += len(found)

    @property
    def found(self) -> list[float]:
        """All of them."""
        found: list[float] = self._room[: self._n].tolist()
        return found


def resident_mib() -> float:
    """What of this process is in memory."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / 2**20


def until(swapping: Swapping, swaps: int) -> None:
    """Wait until so many are done; they take as long as they do."""
    deadline = time.monotonic() + PATIENCE_S
    while swapping.done()[0] < swaps and time.monotonic() < deadline:
        time.sleep(LOOK_S)


def measure(plan: Plan) -> Measured:
    """Run the plan."""
    swapping: Swapping = (Eddyline if plan.contestant == EDDYLINE else SavedModel)(plan)
    at_start = swapping.done()[0]
    warm, idle, busy = (Latencies(plan.events) for _ in range(3))
    with Path(plan.scores).open("wb") as out:
        pace = Pace(plan, swapping.source, out)
        settle()
        pace.start()
        pace.run(plan.warm_s, plan.warm_swaps, swapping.swap, warm)
        until(swapping, at_start + plan.warm_swaps)
        gc.collect()
        before, (done, seconds) = resident_mib(), swapping.done()
        pace.catch_up()
        for _ in range(plan.pairs):
            pace.run(plan.phase_s, 0, swapping.swap, idle)
            pace.run(plan.phase_s, plan.swaps, swapping.swap, busy)
        until(swapping, done + plan.pairs * plan.swaps)
    gc.collect()
    after, (all_done, all_seconds) = resident_mib(), swapping.done()
    return Measured(
        idle=idle.found,
        swapping=busy.found,
        swaps=all_done - done,
        swap_ms=1000 * (all_seconds - seconds) / max(1, all_done - done),
        memory_growth_mib=after - before,
        memory_mib=after,
        failures=pace.failures,
    )


def main() -> int:
    """Run the plan on the command line; the last line of the output is what was measured."""
    plan = msgspec.json.decode(sys.argv[1], type=Plan)
    sys.stdout.write(msgspec.json.encode(measure(plan)).decode() + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
