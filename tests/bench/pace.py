"""A producer at a steady rate, in a process of its own: each event's id says when it was sent.

``python -m tests.bench.pace --broker B --topic T --rate R --seconds S --users U`` prints one JSON line at its end: events and
decisions sent, and how late the latest was against its schedule.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import NamedTuple

from stream.producer import EventProducer
from tests.bench.workload import Workload, settings

TICK_S = 0.001
PREFIX = "at-"


class Paced(NamedTuple):
    """What was sent."""

    events: int
    decisions: int
    late_s: float  # at most


def sent_at(identity: str) -> float:
    """Return when the event ``identity`` was sent, seconds since the epoch."""
    return int(identity.removeprefix(PREFIX).partition("-")[0]) / 1e6


def pace(broker: str, topic: str, rate: float, workload: Workload) -> Paced:
    """Send ``workload``'s events at ``rate`` a second, in ticks of a millisecond."""
    begin, late, decisions, number = time.monotonic(), 0.0, 0, -1
    with EventProducer(settings(broker, topic, topic)) as producer:
        for number, event in enumerate(workload.drawn()):
            due = begin + number / rate
            now = time.monotonic()
            while now < due:
                time.sleep(TICK_S)
                now = time.monotonic()
            late = max(late, now - due)
            decisions += event.decision
            at = time.time()
            identity = f"{PREFIX}{int(at * 1e6)}-{number}"
            producer.send_encoded(event.key, event.encoded(identity, int(at * 1000)))
    return Paced(number + 1, decisions, late)


def main() -> None:
    """Run the command line; see the module docstring."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.pace", description=__doc__)
    parser.add_argument("--broker", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--users", type=int, required=True)
    given = parser.parse_args()
    workload = Workload(int(given.rate * given.seconds), given.users)
    paced = pace(given.broker, given.topic, given.rate, workload)
    sys.stdout.write(json.dumps(paced._asdict()) + "\n")


if __name__ == "__main__":
    main()
