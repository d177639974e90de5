"""A real Apache Kafka for the tests: one process a node, KRaft, on loopback, gone when the test run is.

The integration and fault tests start one here; `tests/kafka/install.sh` fetches the jars first. Nodes are
brokers and controllers in one, so killing one of three is both losing a leader and losing a vote.
"""

from __future__ import annotations

import atexit
import base64
import contextlib
import secrets
import shutil
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

JARS = Path(__file__).resolve().parent.parent / ".kafka" / "jars"
READY_WITHIN_S = 60.0  # on two idle cores one node takes 4 s and three 10; the rest is for a busy machine
POLL_S = 0.2
LOG_TAIL_LINES = 25

# Start-up decides here, not throughput: without the C2 compiler a node starts on 3.3 s of CPU, not 5.4.
JAVA = ("java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dlog4j2.level=WARN", "-cp", f"{JARS}/*")

_ports_given: set[int] = set()


class BrokerError(RuntimeError):
    """A node did not start, or did not answer in time; the message ends with the tail of its log."""


class Broker:
    """A Kafka cluster that runs until `stop`, the end of the `with` block, or the end of this process.

    Build it with `Broker.start`. Node numbers count from 0. Topics are not created on first use. What it keeps is in ``directory``.

    On Linux a node also dies when the thread that started it dies, even by SIGKILL (PR_SET_PDEATHSIG, set by
    setpriv); so call `start` and `restart` from a thread that outlives the cluster's use, as pytest's does.
    """

    def __init__(self, directory: Path, nodes: int, port: int = 0) -> None:
        """Lay out the nodes' directories and ports; `start` brings them to life."""
        if shutil.which("java") is None or not JARS.is_dir():
            raise BrokerError(f"no Java on the PATH or no Kafka in {JARS}: run tests/kafka/install.sh")
        self.directory = directory.resolve()
        self._homes = [directory.resolve() / f"node-{node}" for node in range(nodes)]
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        # One node gets more: it holds every partition. Three fit beside TensorFlow on a small CI machine.
        self._heap = "-Xmx512m" if nodes == 1 else "-Xmx384m"
        ports = _free_ports(2 * nodes)
        if port:
            ports[0] = port
        self._addresses = [f"127.0.0.1:{each}" for each in ports[:nodes]]
        controllers = [f"127.0.0.1:{each}" for each in ports[nodes:]]
        for node, home in enumerate(self._homes):
            home.mkdir(parents=True)
            settings = _settings(node, home / "data", self._addresses[node], controllers)
            lines = [f"{name}={value}\n" for name, value in settings.items()]
            (home / "server.properties").write_text("".join(lines), encoding="utf-8")

    @classmethod
    def start(cls, directory: Path, nodes: int = 1, port: int = 0) -> Self:
        """Start a new cluster and return it once every node answers and sees every other.

        Args:
            directory: gets a new folder a node, with its settings, data and log; `stop` leaves them there.
            nodes: 1, or 3 for a cluster that survives the loss of one (three replicas, two of them in sync).
            port: of the first node; 0 for a free one.

        Raises:
            BrokerError: Java or the jars are missing, or a node ended or stayed silent for 60 s.

        """
        broker = cls(directory, nodes, port)
        try:
            broker._format()
            broker.restart(*range(nodes))
        except BaseException:
            broker.stop()
            raise
        return broker

    @property
    def bootstrap(self) -> str:
        """What clients take as `bootstrap.servers`: every node's host:port, dead or alive, with commas."""
        return ",".join(self._addresses)

    def kill(self, node: int = 0) -> None:
        """End a node at once (SIGKILL). Of three, the others take its partitions over 3 s later."""
        process = self._processes.pop(node, None)
        if process is not None:
            process.kill()
            process.wait()

    def restart(self, node: int = 0, *others: int) -> None:
        """Start a node again, on its old ports and data, killing it first if it runs; return once it answers.

        Name several nodes to start them together: of three dead ones, no first one could get ready alone.

        Raises:
            BrokerError: a node ended or stayed silent for 60 s.

        """
        for one in (node, *others):
            self.kill(one)
        for one in (node, *others):
            self._processes[one] = self._launch(one, self._heap, "kafka.Kafka", "server.properties")
        atexit.register(self.stop)  # for where there is no setpriv; registering twice does no harm
        deadline = time.monotonic() + READY_WITHIN_S
        for one in (node, *others):
            self._await_ready(one, deadline)

    def stop(self) -> None:
        """Kill every node, all at once; an orderly end takes seconds that a test has no use for."""
        for process in self._processes.values():
            process.kill()
        for node in list(self._processes):
            self.kill(node)
        atexit.unregister(self.stop)

    def __enter__(self) -> Self:
        """Return the running cluster."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the cluster."""
        self.stop()

    def _format(self) -> None:
        # The fixed first bytes keep the id from starting with "-", which the tool would take for an option.
        identity = base64.urlsafe_b64encode(b"eddy" + secrets.token_bytes(12)).decode().rstrip("=")
        arguments = ("kafka.tools.StorageTool", "format", "-t", identity, "-c", "server.properties")
        every = range(len(self._homes))
        for node in every:
            self._processes[node] = self._launch(node, "-Xmx128m", *arguments)
        for node in every:
            if self._processes.pop(node).wait() != 0:
                raise BrokerError(f"node {node}'s storage could not be formatted{self._log_tail(node)}")

    def _launch(self, node: int, *arguments: str) -> subprocess.Popen[bytes]:
        # setpriv, not preexec_fn, which would run Python in a fork of a process full of librdkafka's threads.
        tie = ("setpriv", "--pdeathsig", "KILL") if shutil.which("setpriv") else ()
        with (self._homes[node] / "kafka.log").open("ab") as log:
            return subprocess.Popen(
                (*tie, *JAVA, *arguments),
                cwd=self._homes[node],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def _await_ready(self, node: int, deadline: float) -> None:
        """Return when this node, which answers nobody before it is in service, knows every running one."""
        admin = AdminClient(
            {
                "bootstrap.servers": self._addresses[node],
                "log_level": 0,  # refused connections are what we wait out, not news
                "reconnect.backoff.ms": 50,
                "reconnect.backoff.max.ms": 100,
            }
        )
        while time.monotonic() < deadline:
            code = self._processes[node].poll()
            if code is not None:
                self.kill(node)
                raise BrokerError(f"node {node} ended with exit status {code}{self._log_tail(node)}")
            with contextlib.suppress(KafkaException):
                if self._processes.keys() <= admin.list_topics(timeout=POLL_S).brokers.keys():
                    return
        raise BrokerError(f"node {node} was not ready within {READY_WITHIN_S:g} s{self._log_tail(node)}")

    def _log_tail(self, node: int) -> str:
        log = self._homes[node] / "kafka.log"
        tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_TAIL_LINES:]
        return "\n".join((f"; {log} ends:", *tail))


def _free_ports(count: int) -> list[int]:
    """Return ports nobody listens on and that this process has not been given before.

    A dead node's port is safe until its restart: Linux gives bind(0) odd ports and connect() even ones first.
    """
    with contextlib.ExitStack() as held:  # all held until the last is found, so that no two are the same
        ports: list[int] = []
        while len(ports) < count:
            one = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            one.bind(("127.0.0.1", 0))
            port = int(one.getsockname()[1])
            if port not in _ports_given:
                ports.append(port)
                _ports_given.add(port)
        return ports


def _settings(node: int, data: Path, address: str, controllers: list[str]) -> dict[str, object]:
    """Return one node's server.properties: Kafka's defaults but for what small, quick tests need."""
    replicas = min(len(controllers), 3)
    in_sync = 2 if replicas == 3 else 1
    return {
        "node.id": node,
        "process.roles": "broker,controller",
        "listeners": f"PLAINTEXT://{address},CONTROLLER://{controllers[node]}",
        "controller.listener.names": "CONTROLLER",
        "controller.quorum.voters": ",".join(f"{voter}@{at}" for voter, at in enumerate(controllers)),
        "log.dirs": data,
        # How long until a killed node is given up, and what its restart waits for: the controller refuses a
        # broker while its former self may live. Less than Kafka's 9 s, more than a pause on a busy machine.
        "broker.session.timeout.ms": 3000 if replicas > 1 else 1500,
        "broker.heartbeat.interval.ms": 300,
        # Topics: made by the test that needs them, as durable as the cluster can.
        "auto.create.topics.enable": "false",
        "num.partitions": 4,
        "default.replication.factor": replicas,
        "min.insync.replicas": in_sync,
        "message.max.bytes": 4 * 2**20,
        "replica.fetch.max.bytes": 4 * 2**20,
        # Groups: a first member does not wait for more, and a test may let one expire in half a second.
        "group.initial.rebalance.delay.ms": 0,
        "group.min.session.timeout.ms": 500,
        # Kafka's own topics: 4 partitions instead of 50 make the first commit or transaction quick.
        "offsets.topic.num.partitions": 4,
        "offsets.topic.replication.factor": replicas,
        "transaction.state.log.num.partitions": 4,
        "transaction.state.log.replication.factor": replicas,
        "transaction.state.log.min.isr": in_sync,
        "share.coordinator.state.topic.num.partitions": 4,
        "share.coordinator.state.topic.replication.factor": replicas,
        "share.coordinator.state.topic.min.isr": in_sync,
        # Compaction: looks for work every second, not every 15; its buffer would be 128 MiB of a small heap.
        "log.cleaner.enable": "true",
        "log.cleaner.backoff.ms": 1000,
        "log.cleaner.dedupe.buffer.size": 8 * 2**20,
    }
