"""Commands on examples: sink, compact, train. They import what they need when they run."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import click

from deploy.command import EXISTING, MOMENT, NEW, Configured, check_writable, declared_at, milliseconds, stop


@click.command(cls=Configured, groups=("kafka", "topics", "engine", "sink"))
@click.argument("usecase", type=EXISTING)
def sink(usecase: Path, settings: Any) -> None:
    """Write the examples whose label is known to the example log. Start several to share the partitions."""
    declared = declared_at(usecase)
    from deploy import metrics
    from model.features import feature_spec
    from retrain import sink as sinks

    try:
        log = sinks.open_log(settings)
    except sinks.SinkError as error:
        stop(error)
    if settings.sink.metrics_port:
        metrics.serve(settings.sink.metrics_port)
    try:
        sinks.run(sinks.Sink(settings, feature_spec(declared), log))
    except sinks.SinkError as error:
        stop(error, 1)


@click.command()
@click.argument("url")
def compact(url: str) -> None:
    """Merge the small files of the example log at URL (a folder, or what fsspec takes), date by date."""
    from model.example_log import ExampleLog, ExampleLogError

    try:
        log = ExampleLog(url)
    except ExampleLogError as error:
        stop(error)
    try:
        dates = log.dates()
        if not dates:
            stop(f"{url}: no example log is there; correct the URL")
        merged = [log.compact(date) for date in dates]
    except ExampleLogError as error:
        stop(error, 1)
    click.echo(
        f"{url}: {sum(merged):,} small files merged on {sum(map(bool, merged)):,} of {len(dates):,} dates"
    )


@click.command()
@click.argument("usecase", type=EXISTING)
@click.argument("examples")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="the bundle to write, a folder that does not exist",
)
@click.option("--version", required=True, help="the version that the bundle and its scores will name")
@click.option("--seed", type=int, default=0, show_default=True, help="equal seeds give equal weights")
@click.option("--epochs", type=click.IntRange(min=1), help="passes over the examples, at most")
@click.option(
    "--as-of",
    type=MOMENT,
    help="train with what was known then, UTC  [default: all that the examples tell]",
)
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1),
    default=0.5,
    show_default=True,
    help="precision and recall are those of calling a score from here up positive",
)
@click.option("--report", type=NEW, help="write a report for people, an HTML file")
@click.option("--ablation", is_flag=True, help="in the report, train without each source of features as well")
@click.option(
    "--checkpoint",
    type=click.Path(file_okay=False, path_type=Path),
    help="keep the state after each epoch in this folder, and go on from what it holds",
)
def train(usecase: Path, epochs: int | None, seed: int, as_of: datetime | None, **given: Any) -> None:
    """Train a model on EXAMPLES, a Parquet file or an example log, and write its bundle.

    Prints one line of JSON an epoch, then the metrics. Examples are split by time as [training] of the use case says.
    """
    import msgspec

    from model.bundle import BundleError, check_new
    from model.checkpoint import CheckpointError, Epoch
    from model.examples import ExamplesError

    # First what can be told at once: TensorFlow takes 10 s to import, and fitting hours.
    declared_at(usecase)
    if given["ablation"] and given["report"] is None:
        stop("--ablation goes into a report; name one with --report")
    check_examples(given["examples"])
    try:
        check_new(given["out"])
    except BundleError as error:
        stop(error)
    for path in filter(None, (given["out"], given["report"])):
        check_writable(path.parent)
    if given["checkpoint"]:
        check_writable(given["checkpoint"])
    from model import fitting, training

    def say(line: Any) -> None:
        click.echo(msgspec.json.encode(line))

    def tell(line: Epoch) -> None:
        say({"fit": line.fit, **msgspec.structs.asdict(line)})

    settings = fitting.Settings(seed=seed)
    if epochs is not None:
        settings = msgspec.structs.replace(settings, epochs=epochs)
    moment = None if as_of is None else milliseconds(as_of)
    try:
        say(training.run(training.Order(usecase=usecase, settings=settings, as_of=moment, **given), tell))
    except (ExamplesError, BundleError, CheckpointError, OSError) as error:
        stop(error)


def check_examples(where: str) -> None:
    """Leave unless there may be examples at ``where``; what lies behind a URL is found out on reading."""
    path, begin = Path(where), b""
    if "://" not in where:
        try:
            if path.is_dir():
                next(path.iterdir(), None)
            else:
                with path.open("rb") as file:
                    begin = file.read(1)
        except OSError as error:
            stop(f"{where}: no examples can be read there: {error.strerror}; correct the path")
    if begin == b"{" or (path.suffix in {".jsonl", ".json", ".gz"} and not path.is_dir()):
        stop(
            f"{where}: examples are a Parquet file or an example log, got what looks like events (JSON Lines); make "
            "examples of them with `eddyline replay USECASE EVENTS --examples LOG`, and train on LOG"
        )
