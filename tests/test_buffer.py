"""Facts about retrain/buffer.py."""

from __future__ import annotations

from retrain.buffer import Batch, Buffer
from tests.test_examples import example


def test_it_is_due_by_number_or_by_age() -> None:
    """It is time to write at so many records, good or bad, or when the first has waited so long; never for nothing."""
    buffer = Buffer("examples", rows=3, seconds=10.0)
    assert not buffer.due(1e9)
    buffer.add(0, 5, example("a"), now=100.0)
    buffer.add(0, 6, None, now=109.0)
    assert not buffer.due(109.9)
    assert buffer.due(110.0)
    buffer.add(1, 0, example("b"), now=109.0)
    assert buffer.due(109.0)
    assert len(buffer) == 2
    buffer.take()
    assert not buffer.due(1e9)
    buffer.add(0, 7, None, now=200.0)
    assert not buffer.due(209.0)


def test_a_batch_says_what_to_write_and_what_to_commit() -> None:
    """Examples by partition, the offset after the last record of each, and a name with both; then it is empty."""
    buffer = Buffer("examples", rows=3, seconds=10.0)
    a, b, c = (example(name) for name in "abc")
    for partition, offset, held in ((2, 9, a), (0, 5, b), (2, 10, None), (0, 8, c)):
        buffer.add(partition, offset, held, now=0.0)
    assert buffer.take() == Batch([b, c, a], {0: 9, 2: 11}, "examples.0.5-8.2.9-10")
    assert buffer.take() == Batch([], {}, "examples")


def test_what_is_anothers_is_forgotten() -> None:
    """Partitions that are lost leave neither examples nor offsets behind, and the rest does not wait less."""
    buffer = Buffer("examples", rows=3, seconds=10.0)
    for offset in range(2):
        buffer.add(0, offset, example(f"a{offset}"), now=0.0)
        buffer.add(1, offset, example(f"b{offset}"), now=5.0)
    assert buffer.due(5.0)
    buffer.drop([0, 7])
    assert not buffer.due(5.0)
    assert buffer.take().offsets == {1: 2}


def test_records_that_come_again_are_kept_with_the_rest() -> None:
    """After a rebalance within one fetch offsets can go back: nothing is skipped, and the end is the last one's."""
    buffer = Buffer("examples", rows=9, seconds=10.0)
    for offset in (100, 101, 100, 101, 102):
        buffer.add(0, offset, example(str(offset)), now=0.0)
    batch = buffer.take()
    assert [each.id for each in batch.examples] == ["100", "101", "100", "101", "102"]
    assert batch.offsets == {0: 103}
