"""Commands of the trainer: trainer, retrain. They import what they need when they run."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import click

from deploy.command import EXISTING, MOMENT, Configured, declared_at, milliseconds, stop, user


@click.command(cls=Configured, groups=("kafka", "topics", "engine", "events", "sink", "registry", "trainer"))
@click.argument("usecase", type=EXISTING)
def trainer(usecase: Path, settings: Any) -> None:
    """Retrain when drift, the calendar or a request calls for it, and release what is better. Start a second one to stand by."""
    declared = declared_at(usecase)
    from deploy import metrics
    from deploy.registry import RegistryError
    from model.example_log import ExampleLogError
    from retrain import app
    from retrain.job import JobError, backend_of

    try:
        app.check(settings)
        process = app.TrainerProcess(
            settings,
            declared,
            usecase.read_text(encoding="utf-8"),
            backend_of(settings),
            lambda line: click.echo(f"{declared.name}: {line}"),
        )
    except (app.TrainerError, RegistryError, ExampleLogError, JobError) as error:
        stop(error)
    if settings.trainer.metrics_port:
        metrics.serve(settings.trainer.metrics_port)
    if settings.trainer.port:
        from retrain.web import Door

        try:
            Door(settings, settings.trainer.port).open()
        except OSError as error:
            stop(
                f"trainer.port = {settings.trainer.port}: cannot be listened on: {error}; choose another port"
            )
    try:
        app.run(process)
    except app.TrainerError as error:
        stop(error, 1)


@click.command(cls=Configured, groups=("kafka", "topics"))
@click.option("--reason", help="why a new model is wanted; the history tells it")
@click.option("--since", type=MOMENT, help="train on the decisions since then (UTC), as after a change")
@click.option(
    "--weighting",
    type=click.Choice(["since", "importance", "rolling"]),
    help="with --since: those alone, or all of the window weighted to look like them  [default: since]",
)
@click.option("--labels", type=click.IntRange(min=0), default=0, help="labels that must be known since then")
@click.option("--urgent", is_flag=True, help="skip cooldown and budget")
@click.option("--wait", "waits", is_flag=True, help="tell what becomes of it, until nothing more does")
@click.option("--history", is_flag=True, help="list every request and what became of it, instead of asking")
@click.option("--json", "as_json", is_flag=True, help="print the history as JSON Lines")
def retrain(
    reason: str | None,
    since: datetime | None,
    weighting: str | None,
    labels: int,
    urgent: bool,
    waits: bool,
    history: bool,
    as_json: bool,
    settings: Any,
) -> None:
    """Ask the trainer for a new model, and print the request's id; or list what was asked for, and what came of it."""
    from deploy.outlet import OutletError
    from deploy.topics import TopicError
    from retrain import history as histories
    from retrain.request import RequestError, RetrainRequest, Trigger, Weighting

    try:
        if history:
            histories.show(histories.records_in(settings), as_json=as_json)
            return
        if not reason:
            stop("say why with --reason, or see what was asked with --history")
        usual = Weighting.ROLLING if since is None else Weighting.SINCE
        request = RetrainRequest(
            id=histories.new_id("hand"),
            trigger=Trigger.HAND,
            reason=reason,
            by=user(),
            asked=histories.now(),
            weighting=Weighting(weighting) if weighting else usual,
            since=None if since is None else milliseconds(since),
            labels=labels,
            urgent=urgent,
        )
        histories.send(settings, request)
        click.echo(request.id)
        if waits:
            for record in histories.follow(settings, request.id):
                click.echo(f"{record.state.value}: {'; '.join(record.reasons)}")
    except (histories.HistoryError, RequestError, OutletError, TopicError) as error:
        stop(error)
