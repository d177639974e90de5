"""Stand-ins for the pipeline, in the tests of what starts and watches jobs: each does as its spec's reason says."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from retrain.request import RetrainRequest, Trigger
from retrain.spec import JobSpec

PATIENCE_S = 150.0  # for a busy machine: Ray takes seconds for what it does in one

STAND_IN = """
import os, pathlib, signal, sys, time
folder, what = pathlib.Path(sys.argv[1]), sys.argv[2]
with (folder / "starts").open("a") as file:
    file.write(f"{os.getpid()}\\n")
if what == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
print(f"this one {what}", flush=True)
(folder / "ready").touch()
while what in {"works", "deaf"}:
    time.sleep(0.05)
sys.exit(3 if what == "fails" else 0)
"""


def spec(
    identity: str, reason: str = "ends", *, folder: Path | str = "/registry", attempt: int = 1
) -> JobSpec:
    """A job that the stand-in can do."""
    return JobSpec(
        request=RetrainRequest(id=identity, trigger=Trigger.HAND, reason=reason, by="tests", asked=0),
        attempt=attempt,
        version="v2",
        generation=1,
        usecase="",
        examples=str(folder),
        registry=str(folder),
        champion=None,
    )


def stand_in(folder: Path) -> Callable[[JobSpec], tuple[str, ...]]:
    """The command that does a job by doing what its reason says, with a line in ``folder/starts`` for each start."""
    script = folder / "stand_in.py"
    script.write_text(STAND_IN)
    return lambda spec: (sys.executable, str(script), str(folder), spec.request.reason)


def starts(folder: Path) -> list[int]:
    """The pids of the stand-ins that began so far."""
    with contextlib.suppress(FileNotFoundError):
        return [int(line) for line in (folder / "starts").read_text().splitlines()]
    return []


def alive(pid: int) -> bool:
    """Whether that process runs, and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def until(condition: Callable[[], bool], what: str, patience_s: float = PATIENCE_S) -> None:
    """Wait until ``condition`` holds."""
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {patience_s:g} s"
        time.sleep(0.05)


def kill(pid: int) -> None:
    """SIGKILL."""
    os.kill(pid, signal.SIGKILL)
