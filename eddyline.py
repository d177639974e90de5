"""The ``eddyline`` command line: one console script, whose commands import what they need when they run.

The commands of one folder are in its ``commands``; here are those that bring several folders together.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from deploy import commands as of_models
from deploy.command import (
    EXISTING,
    FOLDER,
    MOMENT,
    NEW,
    Configured,
    check_takes_files,
    check_writable,
    declared_at,
    milliseconds,
    scorer_of,
    stop,
)
from detectors import commands as of_drift
from detectors.commands import monitor_of
from retrain import commands as of_retraining
from retrain import example_commands as of_examples
from retrain.example_commands import check_examples
from stream import commands as of_stream


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="eddyline", prog_name="eddyline")
def cli() -> None:
    """Streaming, drift-aware personalization on Kafka.

    Settings come from flags, then EDDYLINE_* variables (EDDYLINE_KAFKA_BOOTSTRAP_SERVERS), then the --config
    file. Exit codes: 0 done, 1 failed while running, 2 something to correct before it can run.
    """


def _new_log(url: str, *, append: bool) -> Any:
    """The example log at ``url``, which takes files and, unless told to ``append``, holds none."""
    from model.example_log import ExampleLog, ExampleLogError

    try:
        log = ExampleLog(url)
        log.check()
        if log.dates() and not append:
            stop(
                f"{url}: examples are there already, and those of another use case, or of another window, would be "
                "mixed with these; name another folder, or add to them with --append"
            )
    except ExampleLogError as error:
        stop(error)
    return log


@click.command(cls=Configured, groups=("events",))
@click.argument("usecase", type=EXISTING)
@click.argument("files", metavar="EVENTS...", type=EXISTING, nargs=-1, required=True)
@click.option("--model", type=FOLDER, help="model bundle to score with; none: priors")
@click.option("--examples", "log", metavar="URL", help="write the examples to this log, a folder or URL")
@click.option("--append", is_flag=True, help="add to the examples that the log holds already")
@click.option("--scores", type=NEW, help="write the scores records to this file (JSON Lines)")
@click.option("--summary", type=NEW, help="write the summary to this file (JSON)")
@click.option(
    "--drift", type=NEW, help="watch --model for drift and write the verdicts to this file (JSON Lines)"
)
def replay(
    usecase: Path,
    files: tuple[Path, ...],
    model: Path | None,
    log: str | None,
    append: bool,
    scores: Path | None,
    summary: Path | None,
    drift: Path | None,
    settings: Any,
) -> None:
    """Run the events of EVENTS (JSON Lines, may be gzipped) through the engine in order of event time, without Kafka.

    The same events give the same scores, examples and verdicts as through Kafka. For backtests and for training sets.
    """
    declared = declared_at(usecase)
    import contextlib

    from detectors.offline import Offline
    from model.example_log import ExampleLogError
    from stream import history
    from stream.engine import TooManyBadRecords
    from stream.files import EventFileError

    if drift is not None and model is None:
        stop("--drift watches a model; name its bundle with --model")
    scorer = None if model is None else scorer_of(model, declared)
    for path in (scores, summary, drift):
        if path is not None and not path.exists():
            check_takes_files(path.parent)
    watched = None if drift is None else Offline(monitor_of(declared, (model,))(), drift)
    examples = None if log is None else _new_log(log, append=append)
    watch = None if watched is None else watched.watch
    outputs = history.Outputs(examples=examples, scores=scores, summary=summary, watch=watch)
    try:
        with watched or contextlib.nullcontext():
            history.run(declared, settings.events, scorer, files, outputs)
    except EventFileError as error:
        stop(error)
    except TooManyBadRecords as error:
        kept = " and ".join(str(each) for each in (scores, log) if each is not None)
        stop(f"{error}{f'. What came before them may stand in {kept}' if kept else ''}", 1)
    except (ExampleLogError, OSError) as error:
        stop(error, 1)
    if watched is not None:
        watched.show()


@click.command()
@click.argument("usecase", type=EXISTING)
@click.argument("examples")
@click.option(
    "--from",
    "begin",
    type=MOMENT,
    required=True,
    help="train the first model as of then, UTC, and judge the decisions from then on",
)
@click.option(
    "--policy",
    "policies",
    metavar="POLICY",
    multiple=True,
    default=("never", "every=30d", "alarm", "verdict"),
    show_default=True,
    help="never, every=DURATION, alarm, verdict, refit or loop; repeat it",
)
@click.option("--learner", type=click.Choice(("network", "boosting")), default="network", show_default=True)
@click.option("--seed", type=int, default=0, show_default=True, help="of every model's training")
@click.option("--summary", type=NEW, help="write all figures to this file (JSON)")
@click.option("--plot", type=NEW, help="draw quality, alarms and retrains over time into this file (PNG)")
def backtest(
    usecase: Path,
    examples: str,
    begin: datetime,
    policies: tuple[str, ...],
    learner: str,
    seed: int,
    **out: Any,
) -> None:
    """Live through EXAMPLES, a Parquet file or an example log, under several policies of when to train.

    Prints what each gained and cost: quality, retrains, corrections, alarms and verdicts.
    """
    declared = declared_at(usecase)
    check_examples(examples)
    import numpy as np

    from detectors.backtest import Policy, check
    from detectors.backtest_log import settled
    from detectors.backtest_view import Order, run
    from model.examples import ExamplesError, read_examples
    from model.features import feature_spec
    from stream.sampling import Sampling

    try:
        named = [(text, Policy.parse(text)) for text in dict.fromkeys(policies)]
    except ValueError as error:
        stop(f"--policy: {error}")
    for path in filter(None, out.values()):
        check_writable(path.parent)
    try:
        log = settled(read_examples(examples, feature_spec(declared)))
        check(declared, log, milliseconds(begin))  # before TensorFlow is loaded, which takes seconds
        learn = _learner(learner, declared, seed)
        order = Order(usecase=declared, begin=milliseconds(begin), policies=named, learner=learner, **out)
        sampling = Sampling(declared.drift, partitions=1)
        chosen = [
            sampling.take(str(user), at)
            for user, at in zip(log.user.tolist(), log.time.tolist(), strict=True)
        ]
        run(order, log, np.array(chosen), learn)
    except (ExamplesError, OSError) as error:
        stop(error)


def _learner(name: str, declared: Any, seed: int) -> Any:
    """What makes the models of a backtest."""
    from detectors import backtest_learners
    from model.features import feature_spec

    spec = feature_spec(declared)
    if name == "boosting":
        return backtest_learners.boosting(spec, seed)
    from model import fitting, training

    settings = fitting.Settings(seed=seed, balance=declared.training.balance)

    def fit(parts: Any) -> Any:
        _, found = training.fit(parts, spec, declared.model, settings, lambda _: None)
        live = training.fit_live(parts, spec, declared.model, settings, lambda _: None, epochs=found.epoch)
        return lambda rows: fitting.predict(live, spec, rows)

    return backtest_learners.timed(fit)


@click.command("chronicle", cls=Configured, groups=("kafka", "topics", "sink", "registry"))
@click.argument("usecase", type=EXISTING)
@click.option("--out", type=NEW, default="chronicle.html", show_default=True, help="the page, an HTML file")
def tell_chronicle(usecase: Path, out: Path, settings: Any) -> None:
    """Tell on one page what happened: quality beside the first model's, verdicts, retrains, releases."""
    declared = declared_at(usecase)
    check_writable(out.parent)
    from deploy.consumer import ConsumerError
    from deploy.registry import RegistryError
    from stream import chronicle

    try:
        told = chronicle.gather(declared, settings)
    except (ConsumerError, RegistryError, chronicle.ChronicleError) as error:
        stop(error)
    out.write_text(chronicle.html(told, datetime.now(UTC).isoformat(timespec="seconds")), encoding="utf-8")
    click.echo(out)


@click.command()
@click.argument(
    "example", type=click.Path(exists=True, file_okay=False, path_type=Path), default="examples/oulad"
)
@click.option(
    "--directory",
    type=click.Path(file_okay=False, path_type=Path),
    default="demo-run",
    show_default=True,
    help="where the demo keeps its files; emptied first",
)
@click.option(
    "--rate",
    type=click.FloatRange(min=1),
    default=25_000,
    show_default=True,
    help="events a second, or what the machine manages",
)
@click.option("--events", "limit", type=click.IntRange(min=1), help="stream at most so many events")
def demo(example: Path, directory: Path, rate: float, limit: int | None) -> None:
    """Show the loop on real data: a first model, the stream, drift, its response, retraining, the swap, what it gained."""
    file = example / "usecase.toml"
    declared = declared_at(file)
    from stream.chronicle import ChronicleError
    from stream.demo import run
    from stream.demo_system import DemoError

    try:
        run(example, declared, file, directory, rate=rate, limit=limit)
    except (DemoError, ChronicleError) as error:
        stop(error, 1)
    except KeyboardInterrupt:
        stop("stopped", 130)


for command in (
    of_stream.worker,
    of_examples.sink,
    of_drift.monitor,
    of_drift.drift,
    of_retraining.trainer,
    of_retraining.retrain,
    of_models.models,
    of_examples.compact,
    of_stream.topics,
    of_stream.produce,
    replay,
    of_stream.check,
    of_stream.explore,
    of_examples.train,
    backtest,
    tell_chronicle,
    demo,
):
    cli.add_command(command)


def main() -> None:
    """Entry point of the console script."""
    sys.exit(cli())


if __name__ == "__main__":
    main()
