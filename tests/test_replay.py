"""Facts about replay: the same results as through Kafka, in event-time order, and nothing from the future."""

from __future__ import annotations

import gzip
import random
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

import eddyline
from deploy.settings import Events, Settings
from deploy.topics import state_changelog
from model.example_log import ExampleLog
from model.examples import Example
from model.scorer import LiteRTScorer
from model.usecase import parse
from stream import files as event_files
from stream import history
from stream.engine import Processed
from stream.feedback import PREFIX
from stream.files import EventFileError, key_of, lines, merged, survey
from stream.replay import Replay, Summary, Tally
from stream.scoring import Score
from tests.broker import Broker
from tests.builders import USECASE as SYNTHETIC
from tests.conftest import fresh_settings
from tests.events import DAY_MS, NOW_MS, START_MS, USECASE, event, stream, usecase
from tests.workers import Worker, changelog, lag, read, send


def customers(n: int, users: int, seed: int) -> list[dict[str, Any]]:
    """``n`` events of the synthetic use case in time order: views, offers that may be bought, purchases."""
    chance = random.Random(seed)
    made: list[dict[str, Any]] = []
    for number in range(n):
        kind = chance.choices(["view", "offer", "buy"], [70, 15, 15])[0]
        made.append(
            {
                "id": f"e{number}",
                "type": kind,
                "user": f"u{chance.randrange(users)}",
                "time": START_MS + number * 600_000,
                "item": f"course-{chance.randrange(4)}",
                "value": chance.randrange(1, 50),
                "context": {"plan": f"plan-{chance.randrange(4)}"},
            }
        )
    return made


def replayed(
    events: list[dict[str, Any]], scorer: LiteRTScorer | None, size: int = 997, text: str = SYNTHETIC
) -> tuple[list[Processed], Replay]:
    """The results of a replay in chunks of ``size``, and where it ended."""
    values = [msgspec.json.encode(each) for each in events]
    replay = Replay(parse(text), Events(), scorer)
    chunks = (values[begin : begin + size] for begin in range(0, len(values), size))
    return list(replay.run(chunks, NOW_MS)), replay


# In two weeks some 300 decisions of 150 users: their quota is used up in some.
WATCHED = SYNTHETIC + '[drift]\nsamples = 100\nblock = "14d"\n'


def records(settings: Settings, topic: str) -> list[bytes]:
    """The values of ``topic``, each once, in the order of their first appearance."""
    values = [message.value() for message in read(settings, topic)]
    return list(dict.fromkeys(value for value in values if isinstance(value, bytes)))


def through_kafka(
    settings: Settings, events: list[dict[str, Any]], model: Path, folder: Path, text: str = SYNTHETIC
) -> None:
    """Send the events and let a worker process them all."""
    send(settings, events)
    with Worker(settings, folder, "--model", str(model), usecase=text) as worker:
        worker.wait_for(lambda: lag(settings) == 0, "all events are committed")
        assert worker.stop() == 0


def test_replay_gives_what_kafka_gives_to_the_byte(broker: Broker, trained: Path, tmp_path: Path) -> None:
    """One partition: equal score, example and sample records, profile rows and open decisions."""
    settings = fresh_settings(broker, partitions=1)
    events = customers(20_000, users=200, seed=1)
    through_kafka(settings, events, trained, tmp_path, WATCHED)
    results, replay = replayed(events, LiteRTScorer.load(trained), text=WATCHED)
    assert records(settings, settings.topics.scores) == [value for each in results for value in each.values]
    examples = [value for each in results for value in each.joined.examples]
    assert records(settings, settings.topics.examples) == examples
    assert len(examples) > 2000
    samples = [value for each in results for value in each.joined.samples]
    assert records(settings, settings.topics.samples) == samples
    assert 1000 < len(samples) < len(examples)
    sent = {
        msgspec.json.decode(message.value() or b"")["id"]: str(message.timestamp()[1]).encode()
        for message in read(settings, settings.topics.events)
    }
    for message in read(settings, settings.topics.samples):
        decision = msgspec.json.decode(message.value() or b"")
        assert (message.headers() or []) == ([] if "label" in decision else [("sent", sent[decision["id"]])])
        assert message.timestamp()[1] > max(map(int, sent.values()))  # it is deleted by when it was written
    rows = {
        key: row.tobytes()
        for key in replay.state.profiles
        if (row := replay.state.profiles.row(key)) is not None
    }
    assert changelog(settings) == rows
    log: dict[bytes, bytes | None] = {}
    for message in read(settings, state_changelog(settings.engine.id)):
        key, value = message.key(), message.value()
        assert isinstance(key, bytes)
        assert value is None or isinstance(value, bytes)
        log[key] = value
    still_open = [key for key, value in log.items() if key.startswith(PREFIX + b"d") and value is not None]
    assert len(replay.state.pending) == len(still_open) > 0


def test_replay_gives_what_several_workers_give(broker: Broker, trained: Path, tmp_path: Path) -> None:
    """Four partitions: the same scores, features and labels; only offsets, which number a partition, differ."""
    settings = fresh_settings(broker)
    events = customers(10_000, users=200, seed=2)
    # A last event of many users closes in every partition the windows that it closes in the replay.
    after = events[-1]["time"] + 10 * DAY_MS
    events += [event(id=f"z{n}", type="view", user=f"u{n}", time=after, item="x") for n in range(200)]
    through_kafka(settings, events, trained, tmp_path)
    results, _ = replayed(events, LiteRTScorer.load(trained))

    def same(values: list[bytes], kind: type[Any]) -> dict[str, Any]:
        decoded = [msgspec.json.decode(value, type=kind) for value in values]
        return {each.id: msgspec.structs.replace(each, profile_offset=0) for each in decoded}

    assert same(records(settings, settings.topics.scores), Score) == same(
        [value for each in results for value in each.values], Score
    )
    assert same(records(settings, settings.topics.examples), Example) == same(
        [value for each in results for value in each.joined.examples], Example
    )
    for matured, kind in ((False, Score), (True, Example)):
        found, expected = (
            [value for value in values if (b'"label":' in value) is matured]
            for values in (
                records(settings, settings.topics.samples),
                [value for each in results for value in each.joined.samples],
            )
        )
        assert len(found) > 1000
        assert same(found, kind) == same(expected, kind)
    assert {0} == {message.partition() for message in read(settings, settings.topics.samples)}


def by_id(results: list[Processed]) -> dict[str, bytes]:
    """The record of each score."""
    return {
        score.id: value for each in results for score, value in zip(each.scores, each.values, strict=True)
    }


def test_features_at_a_decision_know_earlier_events_only(trained: Path) -> None:
    """Whatever happens from a decision on, also at its very moment, its features and score stay."""
    events = customers(3000, users=20, seed=3)
    scorer = LiteRTScorer.load(trained)
    before = by_id(replayed(events, scorer)[0])
    chance = random.Random(3)
    for cut in chance.sample([n for n, each in enumerate(events) if each["type"] == "offer"], 5):
        future = [dict(each) for each in events[cut + 1 :]]
        for each in future:
            each |= {"type": chance.choice(["view", "buy"]), "user": events[cut]["user"], "value": 1e6}
            each["time"] = events[cut]["time"]
        results, _ = replayed([*events[: cut + 1], *future], scorer, size=chance.randrange(1, 3000))
        known = [each["id"] for each in events[: cut + 1] if each["type"] == "offer"]
        assert {name: before[name] for name in known} == by_id(results)


def test_files_are_replayed_in_order_of_event_time(tmp_path: Path) -> None:
    """Sorted, unsorted and gzipped files become one history; of one time, the first file's events come first."""
    events = stream(30_000, users=50, seed=4)
    chance = random.Random(4)
    parts: list[list[dict[str, Any]]] = [[], [], []]
    for each in events:
        parts[chance.randrange(3)].append(each)
    chance.shuffle(parts[1])
    names = ["a.jsonl", "b.jsonl", "c.jsonl.gz"]
    for name, part in zip(names, parts, strict=True):
        text = b"".join(msgspec.json.encode(each) + b"\n" for each in part)
        (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    (tmp_path / "empty.jsonl").write_bytes(b"\n")
    surveys = [survey(tmp_path / name) for name in [*names, "empty.jsonl"]]
    assert [True, False, True, True] == [each.in_order for each in surveys]
    assert [*map(len, parts), 0] == [each.events for each in surveys]
    values = [value for chunk in merged(surveys) for value in chunk]
    assert [each["id"] for each in events] == [msgspec.json.decode(value)["id"] for value in values]


def test_what_has_no_time_keeps_its_place(tmp_path: Path) -> None:
    """A line that cannot be read stays behind the one before it, to be counted; events of one time keep their order."""
    lines = [
        msgspec.json.encode(event(id="1", time=START_MS)),
        b"rubbish",
        msgspec.json.encode(event(id="2", time="2023-11-15T00:00:00Z")),
        msgspec.json.encode(event(id="3", time="2023-11-15T00:00:00Z")),
    ]
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
    (tmp_path / "b.jsonl").write_bytes(msgspec.json.encode(event(id="4", time=START_MS + DAY_MS)))
    values = [
        value
        for chunk in merged([survey(tmp_path / "a.jsonl"), survey(tmp_path / "b.jsonl")])
        for value in chunk
    ]
    assert values[:4] == lines
    replay = Replay(usecase(), Events(max_bad_ratio=1.0), None)
    tally = Tally(usecase(), replay)
    for processed in replay.run([values], NOW_MS):
        tally.add(processed)
    assert tally.summary().bad == {"not-json": 1}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"id":"x","type":"page","user":"u","time":99999999999999999999}', "impossible-time"),
        (b'{"id":"x","type":"page","user":"u","time":"0001-01-01T00:00:00"}', "impossible-time"),
        (b'{"id":"x","context":' + b"[" * 20_000 + b"]" * 20_000 + b"}", "wrong-type"),
    ],
)
def test_no_time_and_no_depth_of_a_line_ends_a_replay(tmp_path: Path, line: bytes, reason: str) -> None:
    """Such a line keeps its place and is counted like any other that cannot be used."""
    around = [msgspec.json.encode(event(id=name, time=START_MS)) for name in "ab"]
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\n".join([around[0], line, around[1]]))
    assert survey(path).in_order
    values = [value for chunk in merged([survey(path)]) for value in chunk]
    assert [around[0], line, around[1]] == values
    results = list(Replay(usecase(), Events(max_bad_ratio=1.0), None).run([values], NOW_MS))
    assert [reason] == [bad.reason.value for each in results for bad in each.bad]


def test_a_deep_line_has_no_key() -> None:
    """Its user cannot be read."""
    assert key_of(b'{"context":' + b"[" * 20_000 + b"]" * 20_000 + b',"user":"u"}') is None


@pytest.mark.parametrize("seed", range(20))
def test_events_of_one_time_stand_in_the_order_of_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Wherever a chunk ends among them: as if all lines were sorted by time, file and line."""
    chance = random.Random(seed)
    monkeypatch.setattr(event_files, "CHUNK", chance.randrange(1, 9))
    expected: list[tuple[int, int, int, str]] = []
    paths = []
    for file in range(chance.randrange(2, 6)):
        times = [START_MS + chance.randrange(6) for _ in range(chance.randrange(60))]
        if chance.random() < 0.8:
            times.sort()
        made = [event(id=f"{file}-{line}", time=time) for line, time in enumerate(times)]
        expected += [(time, file, line, f"{file}-{line}") for line, time in enumerate(times)]
        paths.append(tmp_path / f"{file}.jsonl")
        paths[-1].write_bytes(b"".join(msgspec.json.encode(each) + b"\n" for each in made))
    values = [value for chunk in merged([survey(path) for path in paths]) for value in chunk]
    assert [name for *_, name in sorted(expected)] == [msgspec.json.decode(value)["id"] for value in values]


def damaged(path: Path, damage: str) -> None:
    """Make ``path`` a gzipped event file with the ``damage``."""
    whole = gzip.compress(b"".join(msgspec.json.encode(each) + b"\n" for each in stream(5000, users=9)))
    path.write_bytes(
        {
            "truncated": whole[: len(whole) // 2],
            "corrupt": whole[:20] + b"\xff" * 100 + whole[120:],
            "not gzip": b"plain",
        }[damage]
    )


@pytest.mark.parametrize("damage", ["truncated", "corrupt", "not gzip"])
def test_a_damaged_file_is_named(tmp_path: Path, damage: str) -> None:
    """With the line up to which it could be read, and what to do."""
    path = tmp_path / "events.jsonl.gz"
    damaged(path, damage)
    with pytest.raises(
        EventFileError, match=r"events.jsonl.gz: cannot be read after line \d+: .*; check that"
    ):
        list(lines(path))


def test_a_damaged_file_ends_a_replay_before_anything_is_written(tmp_path: Path) -> None:
    """One line, exit code 2; scores of an earlier replay stay."""
    declared, scores = tmp_path / "usecase.toml", tmp_path / "scores.jsonl"
    declared.write_text(USECASE)
    scores.write_text("mine")
    damaged(tmp_path / "events.jsonl.gz", "truncated")
    command = ["replay", str(declared), str(tmp_path / "events.jsonl.gz"), "--scores", str(scores)]
    done = CliRunner().invoke(eddyline.cli, command)
    assert (2, 1) == (done.exit_code, done.stderr.count("\n"))
    assert "events.jsonl.gz: cannot be read after line" in done.stderr
    assert scores.read_text() == "mine"


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """A use case and an event file of it."""
    declared, events = tmp_path / "usecase.toml", tmp_path / "events.jsonl"
    declared.write_text(USECASE + '[quality]\nslices = ["plan"]\n')
    made = stream(20_000, users=100, seed=5, step_ms=300_000)
    events.write_bytes(b"".join(msgspec.json.encode(each) + b"\n" for each in made))
    return declared, events


def test_whoever_watches_is_shown_every_sample(trained: Path, tmp_path: Path) -> None:
    """Chunk by chunk in order, and the summary counts them; each scored sample comes before its matured one."""
    path, shown = tmp_path / "events.jsonl", list[bytes]()
    made = customers(5000, users=50, seed=6)
    path.write_bytes(b"".join(msgspec.json.encode(each) + b"\n" for each in made))
    outputs = history.Outputs(watch=shown.extend)
    summary = history.run(parse(WATCHED), Events(), LiteRTScorer.load(trained), [path], outputs)
    matured = [msgspec.json.decode(each, type=Example).id for each in shown if b'"label":' in each]
    scored = [msgspec.json.decode(each, type=Score).id for each in shown if b'"label":' not in each]
    assert (summary.samples, summary.matured_samples) == (len(scored), len(matured))
    results, _ = replayed(made, LiteRTScorer.load(trained), text=WATCHED)
    assert shown == [value for each in results for value in each.joined.samples]
    assert scored[: len(matured)] == matured


def test_the_command_writes_scores_examples_and_a_summary(files: tuple[Path, Path], tmp_path: Path) -> None:
    """One record a decision, one row a matured one, and quality by month, model and slice."""
    out = [tmp_path / name for name in ("scores.jsonl", "log", "summary.json")]
    options = [
        text
        for flag, path in zip(("--scores", "--examples", "--summary"), out, strict=True)
        for text in (flag, str(path))
    ]
    done = CliRunner().invoke(eddyline.cli, ["replay", *map(str, files), *options])
    assert done.exit_code == 0, done.output
    summary = msgspec.json.decode(out[2].read_bytes(), type=Summary)
    table = ExampleLog(out[1]).read()
    scores = [msgspec.json.decode(line, type=Score) for line in out[0].read_bytes().splitlines()]
    assert (
        sum(summary.decisions.values())
        == len(scores)
        == summary.examples + summary.open - still_positive(summary, table)
    )
    assert len(table) == summary.examples
    assert int(table["label"].to_numpy().sum()) == summary.positives
    months = [cohort for cohort in summary.quality if not cohort.slice]
    assert sum(cohort.decisions for cohort in months) == len(scores) - summary.open
    plans = [cohort for cohort in summary.quality if cohort.slice == "plan"]
    assert {"a", "b", "c"} == {cohort.value for cohort in plans}
    assert sum(cohort.decisions for cohort in plans) == len(scores) - summary.open
    assert {0.5} == {cohort.auc for cohort in months}  # one prior for all
    assert "20,000 events" in done.output


def still_positive(summary: Summary, table: Any) -> int:
    """Examples whose decision's window has not closed: positives."""
    last = START_MS + 19_999 * 300_000
    assert summary.open > 0
    return int(np.sum(table["closes"].to_numpy() >= last))


def test_a_log_that_has_examples_is_added_to_only_when_told(files: tuple[Path, Path], tmp_path: Path) -> None:
    """Another window's labels are not mixed in by accident; the same replay again with --append adds nothing."""
    command = ["replay", *map(str, files), "--examples", str(tmp_path / "log")]
    assert CliRunner().invoke(eddyline.cli, command).exit_code == 0
    rows = ExampleLog(tmp_path / "log").read()
    assert len(rows) > 0
    again = CliRunner().invoke(eddyline.cli, command)
    assert again.exit_code == 2
    assert "examples are there already" in again.stderr
    assert "with --append" in again.stderr
    assert CliRunner().invoke(eddyline.cli, [*command, "--append"]).exit_code == 0
    assert ExampleLog(tmp_path / "log").read().sort_by("id").equals(rows.sort_by("id"))


@pytest.mark.parametrize(
    ("option", "target"),
    [
        *(
            (option, target)
            for option in ("--scores", "--summary")
            for target in ("missing/file", "/proc/file")
        ),
        *(("--examples", target) for target in ("usecase.toml/log", "/proc/log", "nosuch://bucket/log")),
    ],
)
def test_what_cannot_be_written_is_found_before_the_replay(
    files: tuple[Path, Path], tmp_path: Path, option: str, target: str
) -> None:
    """One line and exit code 2; only an example log makes its folders."""
    at = target if target.startswith("/") or ":" in target else str(tmp_path / target)
    done = CliRunner().invoke(eddyline.cli, ["replay", *map(str, files), option, at])
    assert (2, "", 1) == (done.exit_code, done.stdout, done.stderr.count("\n"))
    assert done.stderr.startswith("eddyline: ")


def test_too_many_bad_lines_end_the_replay(files: tuple[Path, Path]) -> None:
    """A file of something else is refused with its reasons, not replayed as nothing."""
    files[1].write_bytes(b"{}\n" * 5000)
    done = CliRunner().invoke(eddyline.cli, ["replay", *map(str, files)])
    assert done.exit_code == 1
    assert "are bad" in done.output


def test_what_was_written_before_too_many_bad_lines_is_said(files: tuple[Path, Path], tmp_path: Path) -> None:
    """The message names the files that hold something, and does not speak of commits."""
    files[1].write_bytes(files[1].read_bytes() + b"{}\n" * 30_000)
    scores = tmp_path / "scores.jsonl"
    done = CliRunner().invoke(eddyline.cli, ["replay", *map(str, files), "--scores", str(scores)])
    assert done.exit_code == 1
    assert f"What came before them may stand in {scores}" in done.stderr
    assert "committed" not in done.stderr
    assert scores.stat().st_size > 0
