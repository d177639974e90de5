"""Every setting of every process, with its unit, its default and its reason.

A value comes from the command line's flags, then ``EDDYLINE_*`` variables, then one TOML file, then the
default. ``eddyline.py`` reads them with :func:`load`; :func:`kafka_client` is what every Kafka client starts from.
"""

from __future__ import annotations

import os
import re
import ssl
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_type_hints

import msgspec
from msgspec import Meta

from model.mistakes import line_of

# Kubernetes tells every pod of a service called eddyline where that is, in variables such as EDDYLINE_PORT.
KUBERNETES = re.compile(r"_(SERVICE_HOST|SERVICE_PORT\w*|PORT|PORT_\d+_\w+)$")


class SettingsError(ValueError):
    """A setting cannot be used: where it came from, the rule, what came, and the fix."""


class _Group(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the settings file."""


class Kafka(_Group, frozen=True):
    """The brokers, and how to reach them."""

    bootstrap_servers: Annotated[str, Meta(description="comma-separated host:port of the brokers")] = (
        "localhost:9092"
    )
    security_protocol: Annotated[
        Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"],
        Meta(description="as in Kafka's own clients"),
    ] = "PLAINTEXT"
    sasl_mechanism: Annotated[
        Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"], Meta(description="used with a SASL protocol")
    ] = "PLAIN"
    sasl_username: Annotated[str, Meta(description="used with a SASL protocol")] = ""
    sasl_password_file: Annotated[
        str, Meta(description="file holding the SASL password, so that it stands in no argument list")
    ] = ""
    ssl_ca_file: Annotated[str, Meta(description="PEM file of the authorities; empty: the system's")] = ""
    ssl_certificate_file: Annotated[str, Meta(description="PEM file of the client certificate, if any")] = ""
    ssl_key_file: Annotated[str, Meta(description="PEM file of the client certificate's key")] = ""
    session_timeout_s: Annotated[
        float, Meta(gt=0, description="seconds until the group gives a silent worker's partitions away")
    ] = 10.0
    delivery_timeout_s: Annotated[
        float, Meta(gt=0, description="seconds to retry a write or wait for a broker before the worker stops")
    ] = 120.0


class Topics(_Group, frozen=True):
    """Topic names, and what ``eddyline topics`` creates them with."""

    events: Annotated[str, Meta(description="what producers send")] = "events"
    scores: Annotated[str, Meta(description="one record per decision")] = "scores"
    examples: Annotated[str, Meta(description="one record per decision whose label is known")] = "examples"
    dead_letters: Annotated[str, Meta(description="records that cannot be used, with the reason")] = (
        "dead-letters"
    )
    samples: Annotated[
        str, Meta(description="the decisions that the drift monitor is shown, as scored and with their label")
    ] = "samples"
    drift: Annotated[str, Meta(description="what the drift monitor found")] = "drift"
    models: Annotated[str, Meta(description="releases of models, as the registry's log has them")] = "models"
    requests: Annotated[str, Meta(description="requests to retrain")] = "retrain-requests"
    retrains: Annotated[str, Meta(description="what the trainer decided, and what came of it")] = "retrains"
    partitions: Annotated[
        int, Meta(ge=1, description="partitions of the topics keyed by user, all alike")
    ] = 8
    replication: Annotated[int, Meta(ge=1, description="copies of every record")] = 1
    retention_h: Annotated[
        float,
        Meta(
            gt=0,
            description="hours to keep scores, examples, samples and dead letters; two of the longest drift.block at least",
        ),
    ] = 336.0
    drift_retention_d: Annotated[
        float, Meta(gt=0, description="days to keep what the drift monitor found")
    ] = 90.0


class Engine(_Group, frozen=True):
    """The worker."""

    id: Annotated[
        str,
        Meta(
            pattern=r"^[a-zA-Z0-9._-]{1,100}$",
            description="consumer group and changelog prefix; a new one rebuilds profiles from the events",
        ),
    ] = "eddyline"
    batch_records: Annotated[
        int, Meta(ge=1, le=1_000_000, description="most records processed at once, over all partitions")
    ] = 8192
    batch_wait_ms: Annotated[
        float,
        Meta(ge=0, le=1000, description="milliseconds to wait for a fuller batch; 0: take what is there"),
    ] = 5.0
    max_open: Annotated[
        int,
        Meta(
            ge=0,
            description="most decisions that a partition keeps waiting for their outcome, about 1.5 kB each; "
            "those beyond are scored and get no example",
        ),
    ] = 250_000
    commit_interval_s: Annotated[float, Meta(gt=0, description="seconds between offset commits")] = 1.0
    metrics_port: Annotated[
        int, Meta(ge=0, le=65535, description="TCP port of the Prometheus metrics on loopback; 0: none")
    ] = 0


class Events(_Group, frozen=True):
    """Which records are accepted."""

    max_bytes: Annotated[
        int, Meta(ge=64, description="bytes of the largest event; longer ones are dead letters")
    ] = 65_536
    max_skew_s: Annotated[
        float, Meta(ge=0, description="seconds that an event's time may lie ahead of the worker's clock")
    ] = 300.0
    max_bad_ratio: Annotated[
        float,
        Meta(
            gt=0, le=1, description="share of bad records among the last `bad_window` that stops the worker"
        ),
    ] = 0.5
    bad_window: Annotated[
        int, Meta(ge=1, description="records over which the share of bad ones is taken")
    ] = 1000


class Sink(_Group, frozen=True):
    """The sink of the example log."""

    log: Annotated[
        str,
        Meta(
            min_length=1,
            description="folder or fsspec URL of the example log, such as s3://bucket/log (needs s3fs)",
        ),
    ] = "example-log"
    flush_rows: Annotated[
        int,
        Meta(ge=1, le=10_000_000, description="records after which a sink writes, about 2 kB of memory each"),
    ] = 50_000
    flush_s: Annotated[
        float,
        Meta(gt=0, description="seconds after which it writes what it has; longer: fewer, larger files"),
    ] = 60.0
    compact_files: Annotated[
        int, Meta(ge=2, description="small files of a date, from which on the sink makes one of them")
    ] = 32
    metrics_port: Annotated[
        int, Meta(ge=0, le=65535, description="TCP port of the Prometheus metrics on loopback; 0: none")
    ] = 0


class Monitor(_Group, frozen=True):
    """The drift monitor."""

    commit_interval_s: Annotated[
        float,
        Meta(
            gt=0, description="seconds between the drift monitor's checkpoints; a verdict makes one at once"
        ),
    ] = 1.0
    metrics_port: Annotated[
        int, Meta(ge=0, le=65535, description="TCP port of the Prometheus metrics on loopback; 0: none")
    ] = 0


class Registry(_Group, frozen=True):
    """The registry of models."""

    url: Annotated[
        str,
        Meta(
            min_length=1,
            description="folder or object store (s3://, gs://, az://) of the versions and the release log",
        ),
    ] = "registry"
    cache: Annotated[
        str, Meta(description="folder for versions fetched from an object store; empty: a temporary one")
    ] = ""
    poll_s: Annotated[
        float, Meta(gt=0, description="seconds between looks for a release that no announcement told of")
    ] = 5.0


class Trainer(_Group, frozen=True):
    """The trainer: it answers verdicts and requests, retrains, and watches what it released."""

    backend: Annotated[
        Literal["local", "ray"],
        Meta(description="where jobs run: a child process here, or a Ray cluster by its Jobs API"),
    ] = "local"
    ray_address: Annotated[str, Meta(description="URL of the Ray dashboard, for the ray backend")] = (
        "http://127.0.0.1:8265"
    )
    ray_token_file: Annotated[
        str, Meta(description="file holding the cluster's bearer token; empty: none is sent")
    ] = ""
    workers: Annotated[
        int, Meta(ge=1, le=64, description="processes that a job's data-parallel training is spread over")
    ] = 1
    gpus: Annotated[int, Meta(ge=0, description="GPUs that each of them asks Ray for")] = 0
    deadline_s: Annotated[float, Meta(gt=0, description="seconds a job may run before it is stopped")] = (
        7200.0
    )
    queue_s: Annotated[
        float, Meta(gt=0, description="seconds a job may wait for the cluster before it is given up")
    ] = 1800.0
    heartbeat_s: Annotated[
        float, Meta(gt=0, description="seconds without a sign of life after which a job counts as lost")
    ] = 120.0
    attempts: Annotated[
        int,
        Meta(ge=1, le=10, description="times that a job is started, each going on from the last checkpoint"),
    ] = 3
    port: Annotated[
        int, Meta(ge=0, le=65535, description="TCP port for requests by HTTP on loopback; 0: none")
    ] = 0
    metrics_port: Annotated[
        int, Meta(ge=0, le=65535, description="TCP port of the Prometheus metrics on loopback; 0: none")
    ] = 0


class Settings(_Group, frozen=True):
    """All settings, by group."""

    kafka: Kafka = Kafka()
    topics: Topics = Topics()
    engine: Engine = Engine()
    events: Events = Events()
    sink: Sink = Sink()
    monitor: Monitor = Monitor()
    registry: Registry = Registry()
    trainer: Trainer = Trainer()


def fields() -> Iterator[tuple[str, str, str, Any]]:
    """Every setting as (group, name, description, default), in order."""
    for group, kind in get_type_hints(Settings).items():
        for name, hint in get_type_hints(kind, include_extras=True).items():
            meta = next(arg for arg in get_args(hint) if isinstance(arg, Meta))
            yield group, name, str(meta.description), getattr(getattr(Settings(), group), name)


def load(
    file: Path | None = None,
    env: Mapping[str, str] = os.environ,
    flags: Mapping[tuple[str, str], str] | None = None,
) -> Settings:
    """Settings from ``flags`` by (group, name), then ``env``, then ``file``; raises :class:`SettingsError`."""
    flags = flags or {}
    text, table = _read(file)
    known = {f"EDDYLINE_{group}_{name}".upper(): (group, name) for group, name, _, _ in fields()}
    for variable in env:
        if variable.startswith("EDDYLINE_") and variable not in known and not KUBERNETES.search(variable):
            raise SettingsError(
                f"{variable} is not a setting; remove it or correct its spelling (`eddyline worker --help` lists them)"
            )
    for variable, at in known.items():
        group, name = at
        for value, origin in (
            (env.get(variable), variable),
            (flags.get(at), f"--{group}-{name}".replace("_", "-")),
        ):
            if value is not None:
                _set(table, at, value, origin)
    try:
        settings = msgspec.convert(table, Settings)
    except msgspec.ValidationError as error:
        message, _, where = str(error).partition(" - at `$.")
        keys = tuple(where.rstrip("`").split(".")) if where else ()
        unknown = message.partition("unknown field `")[2].rstrip("`")
        keys += (unknown,) if unknown else ()
        raise SettingsError(f"{file}:{line_of(text, keys)}: {'.'.join(keys)}: {message}") from error
    _check(settings)
    return settings


def _read(file: Path | None) -> tuple[str, dict[str, Any]]:
    if file is None:
        return "", {}
    try:
        text = file.read_text(encoding="utf-8")
        return text, tomllib.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file}: the settings file cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{file}: not valid TOML: {error}") from error


def _set(table: dict[str, Any], at: tuple[str, str], value: str, origin: str) -> None:
    group, name = at
    hint = get_type_hints(get_type_hints(Settings)[group], include_extras=True)[name]
    try:
        table.setdefault(group, {})[name] = msgspec.convert(value, hint, strict=False)
    except msgspec.ValidationError as error:
        raise SettingsError(f"{origin}: {error}, got {value!r}") from error


def _check(settings: Settings) -> None:
    kafka = settings.kafka
    if kafka.security_protocol.startswith("SASL") and not (kafka.sasl_username and kafka.sasl_password_file):
        raise SettingsError(
            f"kafka.security_protocol is {kafka.security_protocol}, which needs kafka.sasl_username and "
            "kafka.sasl_password_file; set both"
        )
    if bool(kafka.ssl_certificate_file) != bool(kafka.ssl_key_file):
        raise SettingsError(
            "kafka.ssl_certificate_file and kafka.ssl_key_file belong together; set both or neither"
        )
    token = settings.trainer.ray_token_file
    if token and not Path(token).is_file():
        raise SettingsError(f"trainer.ray_token_file: there is no file {token}; correct the path")
    for name in ("sasl_password_file", "ssl_ca_file", "ssl_certificate_file", "ssl_key_file"):
        path = getattr(kafka, name)
        if path and not Path(path).is_file():
            raise SettingsError(f"kafka.{name}: there is no file {path}; correct the path")


def password(kafka: Kafka) -> str:
    """The SASL password, read from its file."""
    return Path(kafka.sasl_password_file).read_text(encoding="utf-8").strip()


def kafka_client(kafka: Kafka) -> dict[str, str | int | float | bool]:
    """The librdkafka configuration that every confluent-kafka client of ours starts from."""
    client: dict[str, str | int | float | bool] = {
        "bootstrap.servers": kafka.bootstrap_servers,
        "security.protocol": kafka.security_protocol,
    }
    if kafka.security_protocol.startswith("SASL"):
        client |= {
            "sasl.mechanism": kafka.sasl_mechanism,
            "sasl.username": kafka.sasl_username,
            "sasl.password": password(kafka),
        }
    if kafka.security_protocol.endswith("SSL"):
        for key, path in (
            ("ssl.ca.location", kafka.ssl_ca_file),
            ("ssl.certificate.location", kafka.ssl_certificate_file),
            ("ssl.key.location", kafka.ssl_key_file),
        ):
            if path:
                client[key] = path
    return client


def kafka_producer(kafka: Kafka) -> dict[str, str | int | float | bool]:
    """What every producer of ours starts from: nothing twice or out of order, and only failures are reported."""
    return kafka_client(kafka) | {
        "enable.idempotence": True,
        "delivery.timeout.ms": int(kafka.delivery_timeout_s * 1000),
        "delivery.report.only.error": True,
        "log_level": 0,
    }


def ssl_context(kafka: Kafka) -> ssl.SSLContext | None:
    """The TLS context of the aiokafka clients inside Faust, or None without TLS."""
    if not kafka.security_protocol.endswith("SSL"):
        return None
    context = ssl.create_default_context(cafile=kafka.ssl_ca_file or None)
    if kafka.ssl_certificate_file:
        context.load_cert_chain(kafka.ssl_certificate_file, kafka.ssl_key_file)
    return context
