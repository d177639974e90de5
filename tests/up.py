"""``make up``: a real Kafka on this machine for trying things out, with Eddyline's topics, until Ctrl-C."""

from __future__ import annotations

import contextlib
import signal
import tempfile
from pathlib import Path

import click

from deploy import topics
from deploy.settings import Settings
from tests.broker import Broker

PORT = 9092


def main() -> None:
    """Run until Ctrl-C or SIGTERM; the data goes with it."""
    with tempfile.TemporaryDirectory() as directory, Broker.start(Path(directory), port=PORT) as broker:
        settings = Settings()
        made = topics.create(settings)
        click.echo(f"Kafka is up at {broker.bootstrap} with {', '.join(made)}. Ctrl-C stops it.")
        signal.sigwait({signal.SIGINT, signal.SIGTERM})


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    with contextlib.suppress(KeyboardInterrupt):
        main()
