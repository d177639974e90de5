"""Facts about retrain/controller.py: what the trainer does, told as stories, each in a world where actions work at once."""

from __future__ import annotations

import pytest

from deploy import transitions
from deploy.release import NOTHING, Change, Correction, Role
from deploy.watch import Other, Pair
from retrain.request import State, Weighting
from retrain.spec import JobResult
from retrain.supervision import GiveUp
from retrain.verdicts import Action, Fault, Kind, Verdict
from tests.trainers import DAY, HOUR, NOW, V1, V2, V3, World, first, gate, request, result, verdict, why


def pairs(world: World, n: int, score: float, other: float, beside: tuple[str, str] = ("v2", "v1")) -> None:
    """``n`` decisions that turned out positive, as two models scored them."""
    for number in range(n):
        pair = Pair(f"{world.now}-{number}", beside[0], score, 1, None, Other(beside[1], other))
        world.known.pair(pair, world.now)


def changes(world: World) -> list[Change]:
    """How the release log goes on after the first release."""
    return [each.change for each in world.releases[1:]]


def test_a_verdict_to_retrain_ends_with_a_new_model_live() -> None:
    """It is trained for, passes the gate, goes live, and what was live scores beside it."""
    world = World()
    world.known.hear(verdict(Action.RETRAIN))
    world.turn()
    assert list(world.states().values()) == [State.RUNNING]
    spec = world.specs[0]
    assert (spec.champion, spec.request.weighting, spec.attempt) == (V1, Weighting.SINCE, 1)
    world.turn(turns=3)
    assert len(world.specs) == 1
    world.turn(result())
    release = world.releases[-1]
    assert (release.change, release.live, release.by) == (Change.PROMOTE, V2, "trainer")
    assert release.beside is not None
    assert (release.beside.model, release.beside.role) == (V1, Role.PREVIOUS)
    assert (release.verdict, release.request) == ("v1/1", spec.request.id)
    record = world.known.records[spec.request.id]
    assert (record.state, record.version, record.seconds) == (State.RELEASED, "v2", 60.0)
    world.turn(turns=3)
    assert changes(world) == [Change.PROMOTE]


def test_a_challenger_that_the_gate_keeps_out_changes_nothing() -> None:
    """The gate's reasons are the record's; and the verdict asks again when there are twice the labels."""
    world = World('cooldown = "1m"')
    world.known.hear(verdict(Action.RETRAIN))
    world.turn()
    world.turn(result(gate=gate(passed=False)))
    world.turn()
    assert changes(world) == []
    kept, again = world.known.records.values()
    assert (kept.state, kept.reasons) == (State.KEPT, ("it is worse",))
    assert (again.state, again.request.labels) == (State.WAITING, 10_000)
    world.labels, world.now = 10_000, world.now + HOUR
    world.turn()
    assert len(world.specs) == 2


def test_a_job_that_says_why_it_cannot_is_not_tried_again() -> None:
    """Its error is the record's reason."""
    world = World()
    world.known.ask(request())
    world.turn()
    world.turn(JobResult(error="all labels are 0; wait"))
    assert world.known.records["hand-1"].reasons == ("all labels are 0; wait",)
    assert world.states() == {"hand-1": State.FAILED}


def test_a_lost_job_is_started_anew_until_its_attempts_are_used_up() -> None:
    """Each attempt is a job of its own, which makes the same version; what all of them took counts."""
    world = World()
    world.known.ask(request())
    world.turn()
    world.now += HOUR
    world.turn(GiveUp("lost", retry=True))
    assert [spec.id for spec in world.specs] == ["hand-1-1", "hand-1-2"]
    assert world.specs[0].version == world.specs[1].version == "20231114-221320"
    assert world.stopped == ["hand-1-1"]
    assert world.states() == {"hand-1": State.RUNNING}
    world.now += HOUR
    world.turn(GiveUp("lost again", retry=False))
    record = world.known.records["hand-1"]
    assert (record.state, record.reasons, record.attempt) == (State.FAILED, ("lost again",), 2)
    assert record.seconds == pytest.approx(7200, abs=10)


def test_the_first_model_goes_live_though_there_is_nothing_to_beat() -> None:
    """A person asks, with no model live; there are no stages then either."""
    world = World('stages = ["shadow"]', [NOTHING])
    world.known.ask(request())
    world.turn()
    assert world.specs[0].champion is None
    world.turn(result(gate=gate(champion="")))
    assert (world.releases[-1].change, world.releases[-1].live) == (Change.PROMOTE, V2)
    assert world.states() == {"hand-1": State.RELEASED}


def test_what_was_published_before_a_crash_is_not_published_again() -> None:
    """The next trainer finds the running record, the job's result and the release, and only says so."""
    world = World()
    world.known.hear(verdict(Action.RETRAIN))
    world.turn()
    running = next(iter(world.known.records.values()))
    world.release(
        transitions.promote(world.releases[-1], V2, share=0.2, **why(NOW, request=running.request.id))
    )
    world.turn()  # before its result is seen
    assert world.stopped == []
    world.turn(result())
    world.turn()
    assert changes(world) == [Change.PROMOTE]
    assert list(world.states().values()) == [State.RELEASED]


def test_a_job_for_a_model_that_is_not_live_any_more_is_stopped() -> None:
    """Somebody promoted another one meanwhile."""
    world = World()
    world.known.hear(verdict(Action.RETRAIN))
    world.turn()
    world.release(transitions.promote(world.releases[-1], V3, share=0.2, **why(NOW)))
    world.turn()
    assert world.stopped == [world.specs[0].id]
    assert list(world.states().values()) == [State.REFUSED]


def test_a_verdict_goes_on_when_its_model_comes_back() -> None:
    """It was refused because another model was live; a rollback opens it again, as another attempt."""
    world = World()
    world.known.hear(verdict(Action.RETRAIN))
    world.turn()
    world.release(transitions.promote(world.releases[-1], V3, share=0.2, **why(NOW)))
    world.turn(turns=2)
    assert list(world.states().values()) == [State.REFUSED]
    world.release(transitions.rollback(world.releases[-1], **why(NOW)))
    world.now += 2 * DAY
    world.turn()
    assert list(world.states().values()) == [State.RUNNING]
    assert [spec.attempt for spec in world.specs] == [1, 2]


def test_a_correction_that_changed_while_the_job_ran_is_told() -> None:
    """The gate compared with the scores as they were served before."""
    world = World()
    world.known.ask(request())
    world.turn()
    world.known.hear(verdict(Action.CORRECT_PRIOR, kind=Kind.LABEL, kinds=(Kind.LABEL,)))
    world.turn()
    world.turn(result())
    assert changes(world) == [Change.CORRECT, Change.PROMOTE]
    assert "the correction of v1 changed meanwhile" in world.releases[-1].reason
    assert "the correction of v1 changed meanwhile" in world.known.records["hand-1"].reasons[-1]


def test_a_challenger_of_another_champion_is_not_released() -> None:
    """The gate compared it with v1, and v3 is live: the record says so."""
    world = World()
    world.known.ask(request())
    world.turn()
    world.release(transitions.promote(world.releases[-1], V3, share=0.2, **why(NOW)))
    world.turn(result())
    record = world.known.records["hand-1"]
    assert record.state is State.KEPT
    assert "v3 is live now" in record.reasons[-1]
    assert changes(world) == [Change.PROMOTE]


def test_a_pin_refuses_the_release_of_what_was_trained_meanwhile() -> None:
    """And every request after it."""
    world = World()
    world.known.ask(request())
    world.turn()
    world.release(transitions.pin(world.releases[-1], **why(NOW)))
    world.turn(result())
    assert "pinned" in world.known.records["hand-1"].reasons[-1]
    world.known.ask(request(id="hand-2"))
    world.turn()
    assert world.states() == {"hand-1": State.KEPT, "hand-2": State.REFUSED}


# --- verdicts


def test_verdicts_on_other_models_are_nothing_to_us() -> None:
    """Nor on other use cases, nor what a crash repeats."""
    world = World()
    world.known.hear(verdict(Action.RETRAIN, model="v0"))
    world.known.hear(verdict(Action.RETRAIN, 2, usecase="other"))
    world.turn()
    assert world.states() == {}


def test_an_episode_is_one_record_that_changes_with_its_revisions() -> None:
    """Waiting for labels, then called for, then trained for: each with its own reason."""
    world = World()
    world.labels = 10
    told = [
        verdict(Action.WAIT, revision=0, final=False),
        verdict(Action.RETRAIN, revision=1, final=False),
        verdict(Action.KEEP, revision=2, kinds=()),
    ]
    states = []
    for each in told:
        world.known.hear(each)
        world.turn()
        record = next(iter(world.known.records.values()))
        states.append((record.state, record.request.revision, record.request.labels))
    # The last one kept the model under a drift that is none of the single kinds: worth fitting with much new data.
    assert states == [(State.WAITING, 0, 0), (State.WAITING, 1, 0), (State.WAITING, 2, 4000)]
    assert world.specs == []


def test_a_data_fault_blocks_every_request_until_it_is_over() -> None:
    """People's, too."""
    world = World()
    fault = verdict(
        Action.BLOCK, revision=1, final=False, kind=Kind.FAULT, faults=(Fault("missing", "price"),)
    )
    world.known.hear(fault)
    world.known.ask(request())
    world.turn()
    assert set(world.states().values()) == {State.BLOCKED}
    assert "missing of price" in world.known.records["hand-1"].reasons[0]
    world.known.hear(verdict(Action.KEEP, revision=2, kind=Kind.FAULT, kinds=()))
    world.turn()
    assert world.states()["hand-1"] is State.RUNNING


def test_training_waits_for_labels_and_begins_when_they_are_there() -> None:
    """How many of how many is told, again when they have doubled, and not each second."""
    world = World()
    written = []
    world.known.hear(verdict(Action.RETRAIN))
    for labels in (100, 101, 150, 199, 200, 399, 999, 1000):
        world.labels = labels
        before = dict(world.known.records)
        world.turn()
        written += [each for name, each in world.known.records.items() if before.get(name) is not each]
    assert [each.labels for each in written] == [100, 200, 999, 1000]
    assert written[-1].state is State.RUNNING


def test_one_job_runs_at_a_time_and_the_rest_wait() -> None:
    """People's urgent ones first, then the oldest."""
    world = World('cooldown = "1s"')
    world.known.hear(verdict(Action.RETRAIN))
    world.known.ask(request(id="calm", weighting=Weighting.SINCE, since=NOW - DAY))
    world.known.ask(request(id="urgent", urgent=True))
    world.turn()
    assert [spec.request.id for spec in world.specs] == ["urgent"]
    world.turn(result(gate=gate(passed=False)))
    world.now += HOUR
    world.turn()
    assert [spec.request.trigger.value for spec in world.specs] == ["hand", "verdict"]


# --- corrections


def label_shift(revision: int = 2, action: Action = Action.CORRECT_PRIOR) -> Verdict:
    """A verdict of label drift."""
    return verdict(action, revision=revision, kind=Kind.LABEL, kinds=(Kind.LABEL,))


def test_a_label_shift_is_corrected_at_once_and_without_training() -> None:
    """By one release, and the history says why nothing was trained."""
    world = World()
    world.known.hear(label_shift())
    world.turn(turns=3)
    assert changes(world) == [Change.CORRECT]
    live = world.releases[-1].live
    assert live is not None
    assert live.correction == Correction(0.3, 0.5, 0.45, 0.55, "v1/1")
    assert world.specs == []
    (record,) = world.known.records.values()
    assert record.state is State.REFUSED
    assert record.reasons[0].startswith("no training")


def test_a_correction_ends_when_its_verdict_takes_its_word_back() -> None:
    """And when the model that it corrected is replaced, by itself."""
    world = World()
    world.known.hear(label_shift())
    world.turn()
    world.known.hear(label_shift(3, Action.KEEP))
    world.turn(turns=2)
    assert changes(world) == [Change.CORRECT, Change.WITHDRAW]


def test_nothing_is_corrected_while_the_reference_cannot_be_read() -> None:
    """The base rate that the model is calibrated to is not guessed."""
    world = World()
    world.base = None
    world.known.hear(label_shift())
    world.turn(turns=2)
    assert changes(world) == []


def test_a_correction_that_does_harm_is_withdrawn_by_the_watch_and_stays_so() -> None:
    """Though the verdict still calls for it: the release log remembers."""
    world = World()
    world.known.hear(label_shift())
    world.turn()
    for number in range(300):
        world.known.pair(Pair(f"d{number}", "v1", 0.5, 0, 0.3), world.now)
    world.turn(turns=3)
    assert changes(world) == [Change.CORRECT, Change.WITHDRAW]
    assert (world.releases[-1].by, world.releases[-1].verdict) == ("watch", "v1/1")
    assert "300 decisions of 300 users" in world.releases[-1].reason


# --- the watch


def promoted(world: World) -> None:
    """v2 goes live, with v1 beside it."""
    world.known.hear(verdict(Action.RETRAIN))
    world.turn()
    world.turn(result())


def test_a_worse_model_past_the_gate_is_rolled_back() -> None:
    """By the watch, on the first evidence that is enough, and the request's record says so."""
    world = World()
    promoted(world)
    pairs(world, 200, 0.4, 0.6)
    world.turn()
    release = world.releases[-1]
    assert (release.change, release.by, release.live) == (Change.ROLLBACK, "watch", V1)
    assert "v2 is worse than v1 by +0.4" in release.reason
    assert State.ROLLED_BACK in world.states().values()


def test_a_rollback_that_was_not_recorded_is_and_the_verdict_asks_again() -> None:
    """The watch's, whose trainer was killed before it could say so, or a person's."""
    world = World()
    promoted(world)
    world.release(transitions.rollback(world.releases[-1], **why(world.now, reason="it is worse")))
    world.turn(turns=2)
    back, again = world.known.records.values()
    assert (back.state, back.reasons[-1]) == (State.ROLLED_BACK, "it is worse")
    assert (again.state, again.request.labels) == (State.WAITING, 10_000)
    world.release(transitions.promote(world.releases[-1], V2, share=0.2, **why(world.now)))
    assert world.known.rolled_back() == {}


def test_a_challenger_that_no_worker_loads_is_dropped_in_the_end() -> None:
    """After two weeks without an answer: every other request waits for its trial."""
    world = World('stages = ["canary"]')
    promoted(world)
    world.now += 14 * DAY - HOUR
    world.turn()
    assert changes(world) == [Change.CANARY]
    world.now += 2 * HOUR
    world.turn()
    assert changes(world) == [Change.CANARY, Change.DROP]
    assert "v2 was tried as canary for 14 d without an answer, with 0 labelled" in world.releases[-1].reason
    assert State.KEPT in world.states().values()


def test_a_good_model_is_watched_for_so_many_labels_and_then_left_alone() -> None:
    """What scored beside it is let go."""
    world = World("watch_labels = 300")
    promoted(world)
    pairs(world, 299, 0.6, 0.5)
    world.turn()
    assert changes(world) == [Change.PROMOTE]
    pairs(world, 1, 0.6, 0.5)
    world.turn()
    assert changes(world) == [Change.PROMOTE, Change.DROP]
    assert State.RELEASED in world.states().values()


def test_pairs_of_before_the_comparison_and_repeated_ones_do_not_count() -> None:
    """Whoever reads the topic again comes to the same number."""
    world = World()
    promoted(world)
    pair = Pair("d", "v2", 0.6, 1, None, Other("v1", 0.5))
    world.known.pair(pair, world.now - DAY)
    assert world.known.beside.evidence.pairs == 0
    for _ in range(3):
        world.known.pair(pair, world.now)
    assert world.known.beside.evidence.pairs == 1
    assert world.known.since is not None
    world.known.released(world.releases)
    assert world.known.beside.evidence.pairs == 1


def test_a_challenger_goes_through_its_stages() -> None:
    """In the shadow, then as a canary, then live; each for its number of labels."""
    world = World('stages = ["shadow", "canary"]\nstage_labels = 100')
    promoted(world)
    assert world.releases[-1].live == V1
    pairs(world, 100, 0.5, 0.6, ("v1", "v2"))
    world.turn()
    pairs(world, 99, 0.6, 0.5, ("v2", "v1"))
    world.turn()
    assert changes(world) == [Change.SHADOW, Change.CANARY]
    assert State.STAGED in world.states().values()
    pairs(world, 1, 0.6, 0.5, ("v2", "v1"))
    world.turn()
    assert changes(world) == [Change.SHADOW, Change.CANARY, Change.PROMOTE]
    assert (world.releases[-1].live, world.releases[-1].by) == (V2, "watch")
    assert State.RELEASED in world.states().values()


def test_a_challenger_that_is_worse_is_dropped() -> None:
    """The live model never noticed."""
    world = World('stages = ["shadow"]')
    promoted(world)
    pairs(world, 200, 0.6, 0.4, ("v1", "v2"))
    world.turn()
    assert changes(world) == [Change.SHADOW, Change.DROP]
    assert world.releases[-1].live == V1
    assert State.KEPT in world.states().values()


def test_a_trial_that_a_person_ends_is_over() -> None:
    """Dropped by hand it was kept out; promoted by hand it was released."""
    for change, expected in ((transitions.drop, State.KEPT), (None, State.RELEASED)):
        world = World('stages = ["shadow"]')
        promoted(world)
        now = world.releases[-1]
        moved = (
            transitions.promote(now, V2, share=0.2, **why(NOW)) if change is None else change(now, **why(NOW))
        )
        world.release(moved)
        world.turn()
        assert expected in world.states().values()


def test_a_pinned_release_is_not_rolled_back_and_asked_only_once() -> None:
    """The watch leaves it to people; it does not try again every second."""
    world = World()
    promoted(world)
    world.release(transitions.pin(world.releases[-1], **why(NOW)))
    pairs(world, 200, 0.4, 0.6)
    world.turn(turns=3)
    assert changes(world) == [Change.PROMOTE, Change.PIN]
    world.release(transitions.unpin(world.releases[-1], **why(NOW)))
    world.turn()
    assert changes(world)[-1] is Change.ROLLBACK


# --- the calendar


def test_the_calendar_asks_when_the_model_has_grown_old() -> None:
    """And once a period, whatever became of it."""
    world = World('every = "30d"\ncooldown = "1s"', [first(NOW - 31 * DAY)])
    world.turn()
    assert [spec.request.trigger.value for spec in world.specs] == ["schedule"]
    world.turn(result(gate=gate(passed=False)))
    world.turn(turns=5)
    assert len(world.specs) == 1
    world.now += 30 * DAY
    world.turn()
    assert len(world.specs) == 2
