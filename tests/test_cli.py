"""Facts about the command line, each command run as a person would."""

from __future__ import annotations

import gzip
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from deploy.settings import Engine, Kafka, Settings, Topics
from tests.broker import Broker
from tests.events import USECASE, event, stream
from tests.workers import read


def eddyline(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    return subprocess.run(
        [sys.executable, "-m", "eddyline", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
    )


@pytest.fixture
def usecase(tmp_path: Path) -> Path:
    """The tests' use case, as a file."""
    path = tmp_path / "usecase.toml"
    path.write_text(USECASE)
    return path


def test_check_accepts_good_events(usecase: Path, tmp_path: Path) -> None:
    """A use case and events that fit it end with 0, and a summary of both."""
    events = tmp_path / "events.jsonl"
    events.write_text("".join(json.dumps(each) + "\n" for each in stream(500, users=5)))
    done = eddyline("check", usecase, events)
    assert (0, "") == (done.returncode, done.stderr)
    assert "4 event types, 1 decisions, 14 numeric and 2 categorical inputs" in done.stdout
    assert "500 events, 0 bad" in done.stdout


def test_check_names_line_and_reason_of_bad_events(usecase: Path, tmp_path: Path) -> None:
    """Bad events are listed by line and reason, and end with 1."""
    events = tmp_path / "events.jsonl"
    events.write_text("\n".join([json.dumps(event()), "oops", json.dumps(event(type="pgae"))]))
    done = eddyline("check", usecase, events)
    assert done.returncode == 1
    assert f"{events}:2: not-json: " in done.stderr
    assert f"{events}:3: unknown-event: 'pgae' is not among" in done.stderr
    assert "3 events, 2 bad" in done.stdout


def test_check_names_line_and_fix_of_a_broken_use_case(usecase: Path) -> None:
    """A broken use case ends with 2, file, line and fix."""
    usecase.write_text(USECASE.replace('half_life = "1d"', 'half_life = "1 day"', 1))
    done = eddyline("check", usecase)
    assert done.returncode == 2
    line = (
        usecase.read_text()
        .splitlines()
        .index(next(t for t in usecase.read_text().splitlines() if "1 day" in t))
        + 1
    )
    assert f"{usecase}:{line}: features.pages_1d.half_life: expected a duration" in done.stderr


def test_check_of_a_damaged_file_ends_with_2(usecase: Path, tmp_path: Path) -> None:
    """One line names it."""
    events = tmp_path / "events.jsonl.gz"
    events.write_bytes(gzip.compress(json.dumps(event()).encode() * 100)[:-20])
    done = eddyline("check", usecase, events)
    assert (2, 1) == (done.returncode, done.stderr.count("\n"))
    assert f"eddyline: {events}: cannot be read after line 0" in done.stderr


def test_compact_of_no_url_ends_with_2() -> None:
    """An unknown protocol is the caller's to correct."""
    done = eddyline("compact", "foo://x")
    assert (2, 1) == (done.returncode, done.stderr.count("\n"))
    assert "foo://x: no way to reach it" in done.stderr


def test_topics_then_produce(broker: Broker, tmp_path: Path) -> None:
    """`topics` creates what is missing with matching partitions, twice harmlessly; `produce` sends every line."""
    settings = Settings(
        kafka=Kafka(bootstrap_servers=broker.bootstrap),
        topics=Topics(
            events="cli-events",
            scores="cli-scores",
            examples="cli-examples",
            dead_letters="cli-dead",
            samples="cli-samples",
            drift="cli-drift",
            models="cli-models",
            requests="cli-requests",
            retrains="cli-retrains",
            partitions=3,
        ),
        engine=Engine(id="cli"),
    )
    flags = [
        *("--kafka-bootstrap-servers", broker.bootstrap, "--topics-events", "cli-events"),
        *("--topics-scores", "cli-scores", "--topics-examples", "cli-examples"),
        *("--topics-dead-letters", "cli-dead", "--topics-partitions", "3"),
        *("--topics-samples", "cli-samples", "--topics-drift", "cli-drift"),
        *("--topics-models", "cli-models", "--topics-requests", "cli-requests"),
        *("--topics-retrains", "cli-retrains"),
    ]
    events = tmp_path / "events.jsonl"
    sent = stream(2000, users=50)
    events.write_text("".join(json.dumps(each) + "\n" for each in sent) + "no event\n")
    early = eddyline("produce", events, *flags[:4])
    assert (2, True) == (early.returncode, "create it with `eddyline topics`" in early.stderr)
    for state in ("created", "there already"):
        made = eddyline("topics", *flags, "--engine-id", "cli")
        assert made.returncode == 0
        assert made.stdout.splitlines() == [
            *(
                f"{name}: 3 partitions, {state}"
                for name in ("cli-events", "cli-scores", "cli-examples", "cli-dead", "cli-state-changelog")
            ),
            *(
                f"{name}: 1 partition, {state}"
                for name in ("cli-samples", "cli-drift", "cli-monitor-changelog")
            ),
            *(f"{name}: 1 partition, {state}" for name in ("cli-models", "cli-requests", "cli-retrains")),
        ]
    (tmp_path / "damaged.jsonl.gz").write_bytes(gzip.compress(b"{}\n")[:-9])
    broken = eddyline("produce", tmp_path / "damaged.jsonl.gz", *flags[:4])
    assert (2, 1) == (broken.returncode, broken.stderr.count("\n"))
    assert "damaged.jsonl.gz: cannot be read" in broken.stderr
    done = eddyline("produce", events, *flags[:4])
    assert done.returncode == 0
    assert "2,001 events sent and acknowledged" in done.stdout
    assert "1 of them have no user" in done.stderr
    messages = read(settings, "cli-events")
    assert len(messages) == 2001
    for message in messages:
        value = message.value()
        assert isinstance(value, bytes)
        user = None if value == b"no event" else msgspec.json.decode(value)["user"].encode()
        assert user == message.key()


def test_produce_keeps_to_its_rate(broker: Broker, tmp_path: Path) -> None:
    """A thousand events at 500 a second take two seconds, not less."""
    flags = ["--kafka-bootstrap-servers", broker.bootstrap, "--topics-events", "rate-events"]
    others = ["--topics-scores", "r-s", "--topics-examples", "r-e", "--topics-dead-letters", "r-d"]
    assert eddyline("topics", *flags, "--engine-id", "rate", *others).returncode == 0
    events = tmp_path / "events.jsonl"
    events.write_text("".join(json.dumps(each) + "\n" for each in stream(1000, users=50)))
    begin = time.monotonic()
    assert eddyline("produce", events, "--rate", 500, *flags).returncode == 0
    assert time.monotonic() - begin >= 1.9


def test_no_broker_is_said_so() -> None:
    """Without a broker a command ends with 2 and names the setting."""
    done = eddyline("topics", "--kafka-bootstrap-servers", "127.0.0.1:1")
    assert done.returncode == 2
    assert "no broker of kafka.bootstrap_servers = 127.0.0.1:1 answered" in done.stderr


@pytest.mark.timeout(600)
def test_the_demo_trains_streams_and_scores(here: Path, tmp_path: Path) -> None:
    """The demo converts, trains, releases, streams and tells what came of it, and leaves its files where it was told to."""
    done = eddyline(
        "demo",
        "examples/oulad",
        "--directory",
        tmp_path / "run",
        "--events",
        150_000,
        "--rate",
        100_000,
        cwd=here,
    )
    assert done.returncode == 0, done.stderr
    assert "15,296 decisions with a label" in done.stdout
    assert "150,000 of 150,000 sent" in done.stdout
    assert "by model first" in done.stdout
    assert "model first live: promote" in done.stdout
    assert "had the first model stayed" in done.stdout
    assert "what happened" in (tmp_path / "run" / "chronicle.html").read_text()
    assert (tmp_path / "run" / "model" / "manifest.json").is_file()


@pytest.mark.timeout(600)
def test_ctrl_c_stops_the_demo(here: Path, tmp_path: Path) -> None:
    """Interrupted, the demo stops the process that it waits for and ends with 130."""
    process = subprocess.Popen(
        [sys.executable, "-m", "eddyline", "demo", "examples/oulad", "--directory", str(tmp_path / "run")],
        cwd=here,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    log = tmp_path / "run" / "training.log"
    deadline = time.monotonic() + 200
    while not log.exists() and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (130, "eddyline: stopped") == (process.returncode, err.strip())
    left = subprocess.run(["pgrep", "-f", str(tmp_path / "run")], capture_output=True, text=True, check=False)
    assert left.stdout == ""
