"""When a running job is given up: tables of what was seen of it, and what follows."""

from __future__ import annotations

import pytest

from deploy.settings import Trainer
from retrain.job import JobState
from retrain.spec import Heartbeat, Phase
from retrain.supervision import Continue, GiveUp, Seen, decide, look

SETTINGS = Trainer(queue_s=1000, deadline_s=5000, heartbeat_s=100, attempts=2)
WORKS = Seen(submitted=0, began=50, changed=300, beat=Heartbeat(at=7, phase=Phase.FITTING))
WAITS = Seen(submitted=0)


@pytest.mark.parametrize(
    ("seen", "state", "now"),
    [
        (WAITS, JobState.PENDING, 999),
        (WAITS, None, 999),  # the cluster does not answer: it may be up before the wait is over
        (WORKS, JobState.RUNNING, 399),
        (WORKS, None, 399),  # the registry, which the job writes to, does answer
        (Seen(submitted=0, began=0, changed=4999), JobState.RUNNING, 4999),
    ],
)
def test_a_job_that_gives_signs_of_life_in_time_goes_on(
    seen: Seen, state: JobState | None, now: float
) -> None:
    """Up to each limit, whatever the backend says, if it says anything."""
    assert Continue() == decide(seen, state, 1, now, SETTINGS)


@pytest.mark.parametrize(
    ("seen", "state", "now", "reason", "retry"),
    [
        (WORKS, JobState.FAILED, 301, "the job's process failed or was killed", True),
        (WORKS, JobState.SUCCEEDED, 301, "the job ended and left no result", True),
        (WORKS, JobState.LOST, 301, "its backend does not know it", True),
        (WORKS, JobState.STOPPED, 301, "somebody stopped the job", False),
        (WAITS, JobState.PENDING, 1000, "waited for 1000 s, which is trainer.queue_s", False),
        (WAITS, None, 1000, "waited for 1000 s", False),
        (WORKS, JobState.RUNNING, 400, "no sign of life for 100 s, while its backend calls it running", True),
        (WORKS, None, 400, "no sign of life for 100 s, while its backend does not answer", True),
        (
            Seen(submitted=0, began=0, changed=5000),
            JobState.RUNNING,
            5000,
            "ran for 5000 s, which is trainer.deadline_s",
            False,
        ),
        (Seen(submitted=0, changed=1000), JobState.RUNNING, 1000, "waited for 1000 s", False),
    ],
)
def test_a_job_is_given_up(seen: Seen, state: JobState | None, now: float, reason: str, retry: bool) -> None:
    """The reason names what was exceeded; a new attempt follows unless it would only repeat, and not after the last."""
    first, last = (decide(seen, state, attempt, now, SETTINGS) for attempt in (1, 2))
    assert isinstance(first, GiveUp)
    assert reason in first.reason
    assert retry is first.retry
    assert GiveUp(first.reason, retry=False) == last


def test_a_heartbeat_counts_from_when_it_is_seen_to_change() -> None:
    """The same beat seen again is none, and the job's own clock does not matter."""
    old, new = (Heartbeat(at=at, phase=Phase.FITTING) for at in (9e9, 1.0))
    seen = look(WAITS, JobState.RUNNING, old, 10)
    assert (10, 10) == (seen.began, seen.changed)
    assert seen == look(seen, JobState.RUNNING, old, 50)
    assert 60 == look(seen, JobState.RUNNING, new, 60).changed
    assert seen == look(seen, None, None, 70)


def test_a_job_that_waits_for_its_ranks_has_not_begun() -> None:
    """It gives signs of life while the cluster has no room for them; its time to run counts from the first rank's."""
    seen = look(WAITS, JobState.PENDING, None, 10)
    assert WAITS == seen
    seen = look(seen, JobState.RUNNING, None, 20)
    assert (None, 20) == (seen.began, seen.changed)  # that it is up is a sign of life too
    seen = look(seen, JobState.RUNNING, Heartbeat(at=1, phase=Phase.STARTING), 30)
    assert (None, 30) == (seen.began, seen.changed)
    seen = look(seen, JobState.RUNNING, Heartbeat(at=2, phase=Phase.READING), 40)
    assert (40, 40) == (seen.began, seen.changed)
