"""Facts about retrain/verdicts.py: the trainer understands what the monitor writes."""

from __future__ import annotations

import msgspec
import pytest

from detectors import verdict as theirs
from detectors.monitor import Monitor
from retrain import verdicts as ours
from tests.drifting import records, reference, samples, usecase
from tests.trainers import verdict


def test_every_verdict_of_a_monitor_is_understood() -> None:
    """With the same words in every field that the trainer reads."""
    monitor = Monitor(usecase(), {"v1": reference()})
    found = monitor.observe(records(samples(4000, 2000))).verdicts
    assert len(found) > 1
    for each in found:
        decoded = ours.decode(msgspec.json.encode(each))
        for name in ours.Verdict.__struct_fields__:
            mine, its = msgspec.to_builtins(getattr(decoded, name)), msgspec.to_builtins(getattr(each, name))
            if name != "faults":  # of which less is read
                assert mine == its
    last = ours.newest([ours.decode(msgspec.json.encode(each)) for each in found])
    assert {each.revision for each in last.values()} <= {each.revision for each in found}


def test_the_words_are_the_monitors() -> None:
    """One the trainer does not know would make every such verdict unreadable."""
    assert {each.value for each in ours.Kind} == {each.value for each in theirs.Kind}
    assert {each.value for each in ours.Action} == {each.value for each in theirs.Action}


@pytest.mark.parametrize("value", [None, b"", b"{", b"\xff", b"[]", b'{"id": 1}'])
def test_what_is_no_verdict_is_told(value: bytes | None) -> None:
    """By one kind of error."""
    with pytest.raises(ours.VerdictError, match="not a record of the drift topic"):
        ours.decode(value)


def test_an_open_data_fault_blocks() -> None:
    """Until its last word."""
    assert verdict(ours.Action.BLOCK, final=False).blocking
    assert not verdict(ours.Action.KEEP, final=True).blocking
    assert verdict(ours.Action.KEEP, slice="plan", value="plus").where == "plan = plus"
