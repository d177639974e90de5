"""Commands of the drift monitor: monitor, drift. They import what they need when they run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from deploy.command import EXISTING, FOLDER, Configured, declared_at, stop


@click.command(cls=Configured, groups=("kafka", "topics", "engine", "monitor", "registry"))
@click.argument("usecase", type=EXISTING)
@click.option(
    "--model",
    "bundles",
    type=FOLDER,
    multiple=True,
    help="watch this bundle, repeat it, and no release  [default: what the registry's newest release names]",
)
def monitor(usecase: Path, bundles: tuple[Path, ...], settings: Any) -> None:
    """Watch models for drift and write verdicts to the drift topic. Start a second one to stand by.

    The versions that the newest release names are watched, and those of the next one once it is there.
    """
    declared = declared_at(usecase)
    from contextlib import ExitStack

    from deploy import metrics
    from deploy.registry import Registry, RegistryError
    from detectors import app
    from detectors.models import making, references
    from detectors.releases import Given, Released
    from model.bundle import BundleError

    try:
        app.check(settings, declared.drift.block)
    except app.MonitorError as error:
        stop(error)
    with ExitStack() as stack:
        models: Given | Released
        try:
            if bundles:
                models = Given(references(declared, bundles))
            else:
                registry = Registry.of(settings.registry)
                models = stack.enter_context(Released(registry, declared, settings.registry.poll_s))
        except (BundleError, RegistryError) as error:
            stop(error)
        if settings.monitor.metrics_port:
            metrics.serve(settings.monitor.metrics_port)
        process = app.MonitorProcess(
            settings, models, making(declared), lambda line: click.echo(f"{declared.name}: {line}")
        )
        try:
            app.run(process)
        except app.MonitorError as error:
            stop(error, 1)


@click.command(cls=Configured, groups=("kafka", "topics"))
@click.argument("verdict", metavar="[ID]", required=False)
@click.option(
    "--from",
    "file",
    type=EXISTING,
    help="read the verdicts of this file (JSON Lines), not of the drift topic",
)
@click.option("--json", "as_json", is_flag=True, help="print the newest revision of each as JSON Lines")
def drift(verdict: str | None, file: Path | None, as_json: bool, settings: Any) -> None:
    """List the verdicts on drift, or explain the one whose id is ID, or begins or ends with it."""
    from detectors import reader, view

    try:
        found = reader.from_topic(settings) if file is None else reader.from_file(file)
        view.show(found, verdict, as_json=as_json)
    except (reader.ReadError, view.ViewError) as error:
        stop(error)


def monitor_of(declared: Any, bundles: tuple[Any, ...]) -> Any:
    """What makes a monitor of ``bundles``."""
    from detectors import models
    from model.bundle import BundleError

    try:
        return models.maker(declared, bundles)
    except BundleError as error:
        stop(error)
