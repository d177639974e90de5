"""A real Ray cluster of one node for the tests: on loopback, with a token, gone when the block ends or the test run dies."""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Self

READY_WITHIN_S = 120.0  # 12 to 22 s on two idle cores
PORTS = range(5000, 9999)  # above are those of Ray's workers
MARK = "EDDYLINE_TESTS_RAY"  # in the environment of each of its processes, which tells whose they are


class Cluster:
    """A head with room for ``cpus``, whose dashboard answers; its jobs run with this Python.

    On Linux it is told to end when the thread that started it dies, like :class:`tests.broker.Broker`.
    """

    def __init__(self, directory: Path, cpus: int = 4) -> None:
        self.token_file = directory / "token"
        self.token_file.write_text(secrets.token_hex(32))
        self._folder = tempfile.mkdtemp(prefix="ray-")  # short: a socket's path has 107 bytes at most
        self._damaged = False
        self._mark = secrets.token_hex(8)
        ports = _free_ports(10)
        self.address = f"http://127.0.0.1:{ports[1]}"
        names = (
            *("--port", "--dashboard-port", "--dashboard-agent-listen-port", "--dashboard-agent-grpc-port"),
            *("--node-manager-port", "--object-manager-port", "--runtime-env-agent-port"),
            "--ray-client-server-port",
        )
        self._exporters = ports[len(names) :]
        tie = ("setpriv", "--pdeathsig", "TERM") if shutil.which("setpriv") else ()
        self.log = directory / "ray.log"
        with self.log.open("wb") as log:
            self._head = subprocess.Popen(
                [
                    *tie,
                    *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
                    *("--node-ip-address", "127.0.0.1", "--num-cpus", str(cpus)),
                    *("--temp-dir", self._folder, "--object-store-memory", str(80 * 2**20)),
                    *(f"{name}={port}" for name, port in zip(names, ports, strict=False)),
                ],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                env=self._environment(),
            )
        try:
            self._await_ready()
        except BaseException:
            self.stop()
            raise

    @property
    def whole(self) -> bool:
        """Whether nothing of it was killed yet."""
        return not self._damaged

    def processes(self, *words: str) -> list[int]:
        """Pids of its processes whose command line holds every one of ``words``, the oldest first."""
        found = []
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                with contextlib.suppress(OSError):  # ended meanwhile, or another user's
                    mine = f"{MARK}={self._mark}".encode() in (folder / "environ").read_bytes()
                    line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    if mine and all(word in line for word in words):
                        found.append(int(folder.name))
        return sorted(found)

    def kill(self, *words: str) -> None:
        """SIGKILL to those."""
        self._damaged = True
        for pid in self.processes(*words):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def stop(self) -> None:
        """Kill every process of it, and those started meanwhile."""
        while self.processes():
            self.kill()
            time.sleep(0.05)
        self._head.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _environment(self) -> dict[str, str]:
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "EDDYLINE_"))
        }
        return kept | {
            MARK: self._mark,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",  # jobs run its `python`
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.token_file),
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # binds to 127.0.0.1 then, not to every address
            "RAY_USAGE_STATS_ENABLED": "0",
            "AUTOSCALER_METRIC_PORT": str(self._exporters[0]),
            "DASHBOARD_METRIC_PORT": str(self._exporters[1]),
        }

    def _await_ready(self) -> None:
        deadline = time.monotonic() + READY_WITHIN_S
        request = urllib.request.Request(
            f"{self.address}/api/jobs/", headers={"Authorization": f"Bearer {self.token_file.read_text()}"}
        )
        while time.monotonic() < deadline and self._head.poll() is None:
            with (
                contextlib.suppress(OSError, urllib.error.URLError),
                urllib.request.urlopen(request, timeout=5),
            ):
                return
            time.sleep(0.2)
        raise RuntimeError(f"Ray did not start: {self.log.read_text(errors='replace')[-3000:]}")


def _free_ports(count: int) -> list[int]:
    """Ports below Ray's workers' that nobody listens on."""
    with contextlib.ExitStack() as held:
        ports: list[int] = []
        for port in random.sample(PORTS, len(PORTS)):
            with contextlib.suppress(OSError):
                held.enter_context(socket.socket()).bind(("127.0.0.1", port))
                ports.append(port)
            if len(ports) == count:
                break
        return ports
