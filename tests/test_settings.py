"""Facts about deploy/settings.py: where a value comes from, and what a wrong one is told."""

from __future__ import annotations

from pathlib import Path

import faust
import pytest

from deploy.live import fixed
from deploy.settings import Engine, Kafka, Settings, SettingsError, fields, kafka_client, kafka_producer, load
from model.usecase import load as load_usecase
from stream.app import create_app
from tests.events import usecase


def test_a_producer_retries_as_long_as_it_is_told_and_repeats_nothing() -> None:
    """What every producer of ours starts from, on top of what every client does."""
    kafka = Kafka(bootstrap_servers="somewhere:1", delivery_timeout_s=1.5)
    producer = kafka_producer(kafka)
    assert kafka_client(kafka).items() <= producer.items()
    assert (1500, True) == (producer["delivery.timeout.ms"], producer["enable.idempotence"])


def test_flags_come_before_the_environment_before_the_file(tmp_path: Path) -> None:
    """A flag wins over EDDYLINE_*, which wins over the file, which wins over the default."""
    file = tmp_path / "eddyline.toml"
    file.write_text('[engine]\nid = "file"\nbatch_records = 10\nbatch_wait_ms = 1\n')
    env = {"EDDYLINE_ENGINE_ID": "env", "EDDYLINE_ENGINE_BATCH_RECORDS": "20", "PATH": "/bin"}
    engine = load(file, env, {("engine", "id"): "flag"}).engine
    assert ("flag", 20, 1.0) == (engine.id, engine.batch_records, engine.batch_wait_ms)
    assert Engine().commit_interval_s == engine.commit_interval_s


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[engine]\nid = "a"\nbatch_records = 0\n', ":3: engine.batch_records: Expected `int` >= 1"),
        ("[engine]\nbatch_record = 5\n", ":2: engine.batch_record: Object contains unknown field"),
        ('[kafka]\nsecurity_protocol = "TLS"\n', ":2: kafka.security_protocol: Invalid enum value 'TLS'"),
        ('[kafka]\nsecurity_protocol = "SASL_SSL"\n', "needs kafka.sasl_username and kafka.sasl_password_file"),
        ('[kafka]\nssl_ca_file = "/none.pem"\n', "kafka.ssl_ca_file: there is no file /none.pem"),
        ('[kafka]\nssl_key_file = "/none.pem"\n', "belong together"),
        ("[kafka\n", "not valid TOML"),
    ],
)  # fmt: skip
def test_a_wrong_file_names_line_and_rule(tmp_path: Path, text: str, says: str) -> None:
    """A mistake in the settings file is refused with its line, or with the settings that belong together."""
    file = tmp_path / "eddyline.toml"
    file.write_text(text)
    with pytest.raises(SettingsError) as caught:
        load(file, {})
    assert says in str(caught.value)


def test_a_wrong_variable_or_flag_is_named() -> None:
    """A value that does not fit names the variable or the flag it came from; an unknown variable is refused."""
    with pytest.raises(SettingsError, match=r"EDDYLINE_ENGINE_BATCH_RECORDS.*'many'"):
        load(None, {"EDDYLINE_ENGINE_BATCH_RECORDS": "many"})
    with pytest.raises(SettingsError, match=r"--events-max-bad-ratio.*'2'"):
        load(None, {}, {("events", "max_bad_ratio"): "2"})
    with pytest.raises(SettingsError, match=r"EDDYLINE_ENGINE_NAME is not a setting"):
        load(None, {"EDDYLINE_ENGINE_NAME": "x"})


def test_every_setting_is_described() -> None:
    """Each setting says what it is, and a quantity has its unit in its name."""
    for group, name, description, default in fields():
        assert description, f"{group}.{name}"
        if isinstance(default, float):
            assert name.endswith(("_s", "_ms", "_h", "_d", "_ratio")), f"{group}.{name}"


def test_sasl_reaches_librdkafka_and_faust(tmp_path: Path) -> None:
    """User, password and protocol arrive in the confluent-kafka configuration and in Faust's credentials."""
    secret = tmp_path / "password"
    secret.write_text("s3cret\n")
    kafka = Kafka(
        bootstrap_servers="a:1,b:2",
        security_protocol="SASL_PLAINTEXT",
        sasl_mechanism="SCRAM-SHA-512",
        sasl_username="eddy",
        sasl_password_file=str(secret),
    )
    client = kafka_client(kafka)
    assert ("SASL_PLAINTEXT", "SCRAM-SHA-512", "eddy", "s3cret") == tuple(
        client[key] for key in ("security.protocol", "sasl.mechanism", "sasl.username", "sasl.password")
    )
    app = create_app(Settings(kafka=kafka), usecase(), fixed(None), 4)
    credentials = app.conf.broker_credentials
    assert isinstance(credentials, faust.SASLCredentials)
    assert ("eddy", "s3cret", "SASL_PLAINTEXT") == (
        credentials.username,
        credentials.password,
        credentials.protocol.value,
    )
    assert [url.port for url in app.conf.broker] == [1, 2]


def test_samples_are_kept_for_two_weeks_of_blocks() -> None:
    """The monitor of the example, with blocks of a week, starts with the default retention."""
    declared = load_usecase(Path(__file__).parents[1] / "examples/oulad/usecase.toml")
    assert 2 * declared.drift.block <= Settings().topics.retention_h * 3600
