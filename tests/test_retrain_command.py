"""Facts about `eddyline retrain` and the trainer's HTTP door: how people and programs ask, and what they are told."""

from __future__ import annotations

import getpass
import io
import json
import socket
import threading
import urllib.error
import urllib.request
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result
from confluent_kafka import Producer
from rich.console import Console

import eddyline
from deploy.settings import Settings, kafka_producer
from retrain import history
from retrain.commands import retrain
from retrain.request import Record, RequestError, RetrainRequest, State, Trigger, Weighting, decode
from retrain.web import BODY_BYTES, Door, request_of
from tests.trainers import CHANGED, NOW, gate, record, request
from tests.workers import read


def asked(settings: Settings) -> list[RetrainRequest]:
    """The requests topic."""
    return [decode(message.value()) for message in read(settings, settings.topics.requests)]


def write(settings: Settings, *records: Record) -> None:
    """What a trainer does."""
    producer = Producer(kafka_producer(settings.kafka))
    for each in records:
        producer.produce(settings.topics.retrains, msgspec.json.encode(each), each.request.id)
    assert producer.flush(60) == 0


def run(settings: Settings, *arguments: str) -> Result:
    """`eddyline retrain` with these arguments."""
    flags = [
        *("--kafka-bootstrap-servers", settings.kafka.bootstrap_servers),
        *("--topics-requests", settings.topics.requests, "--topics-retrains", settings.topics.retrains),
    ]
    return CliRunner().invoke(retrain, [*arguments, *flags])


@pytest.mark.parametrize("command", ["retrain --reason prices", "models pin --registry-url none"])
def test_a_machine_that_knows_no_user_is_told_what_to_do(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container without a user of that number: nothing is asked or changed, and the exit code is 2."""

    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found: 1234")

    monkeypatch.setattr(getpass, "getuser", nobody)
    done = CliRunner().invoke(eddyline.cli, command.split())
    assert done.exit_code == 2
    assert "this machine knows no user; give a name in the variable LOGNAME" in done.output


def test_a_person_asks_and_gets_the_requests_id(settings: Settings) -> None:
    """The topic has it by then, with who asked, why, and for which data."""
    done = run(settings, "--reason", "new prices", "--since", "2024-03-01", "--urgent", "--labels", "500")
    assert done.exit_code == 0, done.output
    (found,) = asked(settings)
    assert done.output.strip() == found.id
    assert (found.trigger, found.reason, found.urgent, found.labels) == (
        Trigger.HAND,
        "new prices",
        True,
        500,
    )
    assert (found.weighting, found.since) == (Weighting.SINCE, 1_709_251_200_000)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "--reason"),
        (("--reason", "x", "--weighting", "since"), "needs `since`"),
        (("--reason", "x", "--topics-requests", "nowhere"), "there is no topic"),
        (("--history", "--topics-retrains", "nowhere"), "there is no topic"),
    ],
)
def test_what_cannot_be_asked_is_told_in_one_line(
    settings: Settings, arguments: tuple[str, ...], words: str
) -> None:
    """With what to do."""
    flags = ["--kafka-bootstrap-servers", settings.kafka.bootstrap_servers]
    named = [] if "--topics-requests" in arguments else ["--topics-requests", settings.topics.requests]
    done = CliRunner().invoke(retrain, [*arguments, *flags, *named])
    assert done.exit_code == 2
    assert words in done.output
    assert len(done.output.splitlines()) == 1


def test_the_history_tells_every_decision_and_why(settings: Settings) -> None:
    """Of each request the last one, also of what was not trained for; unreadable records are passed over."""
    write(
        settings,
        record(State.WAITING, request(id="a", reason="prices"), reasons=("312 of the 1,000 labels needed",)),
        record(State.REFUSED, request(id="b", reason="none"), reasons=("no training: it is [corrected]",)),
        record(
            State.KEPT, request(id="a", reason="prices"), reasons=("it is worse",), version="v9", gate=gate(),
            seconds=90.0,
        ),
    )  # fmt: skip
    producer = Producer(kafka_producer(settings.kafka))
    producer.produce(settings.topics.retrains, b"{", "c")
    producer.flush(60)
    done = run(settings, "--history")
    assert done.exit_code == 0, done.output
    told = " ".join(done.output.split())
    assert "312" not in told
    for words in (
        "2023-11-14 21:13:20",
        "kept",
        "it is worse",
        "made v9",
        "1.5 min",
        "refused",
        "[corrected]",
    ):
        assert words in told
    lines = run(settings, "--history", "--json").output.splitlines()
    assert [json.loads(line)["request"]["id"] for line in lines] == ["b", "a"]


def test_an_empty_history_says_so() -> None:
    """In a sentence."""
    to = Console(file=io.StringIO())
    history.show([], to=to)
    assert isinstance(to.file, io.StringIO)
    assert "Nobody has asked" in to.file.getvalue()


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{", "truncated"),
        (b"{}", "reason"),
        (b'{"reason": "x", "colour": 1}', "colour"),
        (b'{"reason": "x", "urgent": true}', "urgent"),
        (b'{"reason": "x", "since": "yesterday"}', "since"),
        (b'{"reason": "x", "weighting": "since"}', "needs `since`"),
        (b'{"reason": "x", "id": "a b"}', "id"),
        (b'{"reason": "x", "labels": -1}', "labels"),
        (b"\xff", "request"),
    ],
)
def test_a_program_is_told_what_is_wrong_with_its_request(body: bytes, words: str) -> None:
    """With the field's name."""
    with pytest.raises(RequestError) as told:
        request_of(body, NOW)
    assert words in str(told.value)


def test_a_program_may_name_its_request() -> None:
    """So that it may ask again after a failure; otherwise each is another."""
    body = msgspec.json.encode({"reason": "x", "id": "nightly-7", "since": CHANGED})
    assert request_of(body, NOW) == request_of(body, NOW)
    assert request_of(body, NOW).weighting is Weighting.SINCE
    anonymous = b'{"reason": "x"}'
    assert request_of(anonymous, NOW).id != request_of(anonymous, NOW).id
    assert request_of(anonymous, NOW).trigger is Trigger.PROGRAM


def answer(port: int, path: str, body: bytes | None = None) -> tuple[int, str, Any]:
    """Status, media type and JSON of an answer."""
    call = urllib.request.Request(f"http://127.0.0.1:{port}{path}", body)
    try:
        with urllib.request.urlopen(call, timeout=30) as found:
            return found.status, found.headers.get_content_type(), json.load(found)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers.get_content_type(), json.load(error)


def test_programs_ask_by_http(settings: Settings) -> None:
    """202 once Kafka has the request, a problem for what is none, the history, and a sign of life; on loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    Door(settings, port).open()
    status, _, told = answer(port, "/retrain", b'{"reason": "nightly", "labels": 300}')
    assert status == 202
    (found,) = asked(settings)
    assert (told, found.reason, found.labels) == ({"id": found.id}, "nightly", 300)
    status, kind, told = answer(port, "/retrain", b'{"reason": 1}')
    assert (status, kind) == (400, "application/problem+json")
    assert "reason" in told["detail"]
    assert answer(port, "/retrain", b"x" * (BODY_BYTES + 1))[0] == 413
    write(settings, record(State.KEPT))
    status, _, told = answer(port, "/retrains")
    assert (status, told[0]["state"]) == (200, "kept")
    assert answer(port, "/healthz")[0] == 200
    with pytest.raises(OSError, match="in use"):
        Door(settings, port).open()


def test_who_waits_is_told_that_no_trainer_answers(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Once, and it goes on waiting: a trainer may be started."""
    monkeypatch.setattr(history, "SILENT_S", 0.0)
    monkeypatch.setattr(history, "POLL_S", 0.01)
    told = history.follow(settings, "hand-1")
    writer = threading.Timer(1.0, lambda: write(settings, record(State.KEPT)))
    writer.start()
    assert [each.state for each in told] == [State.KEPT]
    writer.join()
    assert caplog.text.count("does `eddyline trainer` run?") == 1
