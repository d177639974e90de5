"""The ``eddyline`` command line: one console script, whose commands import what they need when they run."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import click

EXISTING = click.Path(exists=True, dir_okay=False, path_type=Path)
FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
NEW = click.Path(dir_okay=False, writable=True, path_type=Path)
MOMENT = click.DateTime(
    ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S%z"]
)  # UTC, where it names no zone


def _stop(message: object, code: int = 2) -> NoReturn:
    """Say why on stderr and leave: 2 for what the caller can correct, 1 for what failed while running."""
    click.echo(f"eddyline: {message}", err=True)
    raise SystemExit(code)


class _Configured(click.Command):
    """A command with ``--config`` and a flag for every setting of its ``groups``; it receives ``settings``.

    The flags are made when the command is used, so that the others, and ``--help``, do not wait for them.
    """

    def __init__(self, *args: Any, groups: tuple[str, ...], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._groups = groups
        self._flags: dict[str, tuple[str, str]] = {}

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        if not self._flags:
            from deploy import settings

            self.params.append(click.Option(["--config"], type=EXISTING, help="settings file (TOML)"))
            for group, name, description, default in settings.fields():
                if group in self._groups:
                    flag = f"--{group}-{name}".replace("_", "-")
                    text = description + (f"  [default: {default}]" if default != "" else "")
                    self.params.append(click.Option([flag, f"{group}_{name}"], metavar="VALUE", help=text))
                    self._flags[f"{group}_{name}"] = (group, name)
        return super().get_params(ctx)

    def invoke(self, ctx: click.Context) -> Any:
        from deploy import settings

        given = {at: ctx.params.pop(flag) for flag, at in self._flags.items()}
        flags = {at: value for at, value in given.items() if value is not None}
        try:
            ctx.params["settings"] = settings.load(ctx.params.pop("config"), flags=flags)
        except settings.SettingsError as error:
            _stop(error)
        return super().invoke(ctx)


def _usecase(path: Path) -> Any:
    from model import usecase

    try:
        return usecase.load(path)
    except usecase.UseCaseError as error:
        _stop(error)


def _scorer(model: Path, declared: Any) -> Any:
    from model.bundle import BundleError, check_spec
    from model.features import feature_spec
    from model.scorer import LiteRTScorer

    try:
        scorer = LiteRTScorer.load(model)
        check_spec(scorer.bundle, feature_spec(declared))
    except BundleError as error:
        _stop(error)
    return scorer


def _monitor(declared: Any, bundles: tuple[Any, ...]) -> Any:
    """What makes a monitor of ``bundles``."""
    from detectors import models
    from model.bundle import BundleError

    try:
        return models.maker(declared, bundles)
    except BundleError as error:
        _stop(error)


def _takes_files(folder: Path) -> None:
    """Stop unless a file can be made in ``folder``; none is left there."""
    import tempfile

    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        _stop(f"{folder}: no file can be written there: {error.strerror}; name a folder that takes files")


def _check_writable(folder: Path) -> None:
    """Stop unless ``folder`` takes files or can be made in one that does."""
    _takes_files(next(each for each in (folder, *folder.parents) if each.exists()))


def _new_log(url: str, *, append: bool) -> Any:
    """The example log at ``url``, which takes files and, unless told to ``append``, holds none."""
    from model.example_log import ExampleLog, ExampleLogError

    try:
        log = ExampleLog(url)
        log.check()
        if log.dates() and not append:
            _stop(
                f"{url}: examples are there already, and those of another use case, or of another window, would be "
                "mixed with these; name another folder, or add to them with --append"
            )
    except ExampleLogError as error:
        _stop(error)
    return log


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="eddyline", prog_name="eddyline")
def cli() -> None:
    """Streaming, drift-aware personalization on Kafka.

    Settings come from flags, then EDDYLINE_* variables (EDDYLINE_KAFKA_BOOTSTRAP_SERVERS), then the --config
    file. Exit codes: 0 done, 1 failed while running, 2 something to correct before it can run.
    """


@cli.command(cls=_Configured, groups=("kafka", "topics", "engine", "events"))
@click.argument("usecase", type=EXISTING)
@click.option(
    "--model",
    type=FOLDER,
    help="model bundle to score with; none: priors",
)
def worker(usecase: Path, model: Path | None, settings: Any) -> None:
    """Read events, keep profiles, score decisions. Start as many as the events topic has partitions."""
    declared = _usecase(usecase)
    from deploy import metrics, topics
    from stream import app as stream_app

    try:
        partitions = topics.check(settings)
    except topics.TopicError as error:
        _stop(error)
    scorer = None if model is None else _scorer(model, declared)
    if settings.engine.metrics_port:
        metrics.serve(settings.engine.metrics_port)
    stream_app.run(stream_app.create_app(settings, declared, scorer, partitions))


@cli.command(cls=_Configured, groups=("kafka", "topics", "engine", "sink"))
@click.argument("usecase", type=EXISTING)
def sink(usecase: Path, settings: Any) -> None:
    """Write the examples whose label is known to the example log. Start several to share the partitions."""
    declared = _usecase(usecase)
    from deploy import metrics
    from model.features import feature_spec
    from retrain import sink as sinks

    try:
        log = sinks.open_log(settings)
    except sinks.SinkError as error:
        _stop(error)
    if settings.sink.metrics_port:
        metrics.serve(settings.sink.metrics_port)
    try:
        sinks.run(sinks.Sink(settings, feature_spec(declared), log))
    except sinks.SinkError as error:
        _stop(error, 1)


@cli.command(cls=_Configured, groups=("kafka", "topics", "engine", "monitor"))
@click.argument("usecase", type=EXISTING)
@click.option(
    "--model",
    "models",
    type=FOLDER,
    multiple=True,
    required=True,
    help="bundle of a model to watch; repeat it",
)
def monitor(usecase: Path, models: tuple[Path, ...], settings: Any) -> None:
    """Watch models for drift and write verdicts to the drift topic. Start a second one to stand by."""
    declared = _usecase(usecase)
    from deploy import metrics
    from detectors import app

    try:
        app.check(settings, declared.drift.block)
    except app.MonitorError as error:
        _stop(error)
    make = _monitor(declared, models)
    if settings.monitor.metrics_port:
        metrics.serve(settings.monitor.metrics_port)
    try:
        app.run(app.MonitorProcess(settings, make, lambda line: click.echo(f"{declared.name}: {line}")))
    except app.MonitorError as error:
        _stop(error, 1)


@cli.command(cls=_Configured, groups=("kafka", "topics"))
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
        _stop(error)


@cli.command()
@click.argument("url")
def compact(url: str) -> None:
    """Merge the small files of the example log at URL (a folder, or what fsspec takes), date by date."""
    from model.example_log import ExampleLog, ExampleLogError

    try:
        log = ExampleLog(url)
    except ExampleLogError as error:
        _stop(error)
    try:
        dates = log.dates()
        if not dates:
            _stop(f"{url}: no example log is there; correct the URL")
        merged = [log.compact(date) for date in dates]
    except ExampleLogError as error:
        _stop(error, 1)
    click.echo(
        f"{url}: {sum(merged):,} small files merged on {sum(map(bool, merged)):,} of {len(dates):,} dates"
    )


@cli.command(cls=_Configured, groups=("kafka", "topics", "engine"))
def topics(settings: Any) -> None:
    """Create the topics that are missing, with matching partitions; the changelogs are compacted."""
    from deploy import topics as deployed

    try:
        created = deployed.create(settings)
        deployed.check(settings)
        counts = deployed.partition_counts(settings)
    except deployed.TopicError as error:
        _stop(error)
    for plan in deployed.plans(settings):
        state = "created" if plan.name in created else "there already"
        count = counts[plan.name]
        click.echo(f"{plan.name}: {count} partition{'s' if count > 1 else ''}, {state}")


@cli.command(cls=_Configured, groups=("kafka", "topics"))
@click.argument("files", type=EXISTING, nargs=-1, required=True)
@click.option(
    "--rate", type=click.FloatRange(min=0), default=0.0, help="events a second; 0: as fast as they go"
)
def produce(files: tuple[Path, ...], rate: float, settings: Any) -> None:
    """Send the events of FILES (JSON Lines, may be gzipped) to the events topic, keyed by user, in file order."""
    import time

    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from deploy import topics as deployed
    from stream.files import EventFileError, key_of, lines
    from stream.producer import DeliveryError, EventProducer

    try:
        if settings.topics.events not in deployed.partition_counts(settings):
            _stop(f"there is no topic {settings.topics.events}; create it with `eddyline topics`")
    except deployed.TopicError as error:
        _stop(error)
    try:
        total = sum(sum(1 for _ in lines(path)) for path in files)
    except EventFileError as error:
        _stop(error)
    columns = (
        TextColumn("sending"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}"),
        TimeRemainingColumn(),
    )
    begin = time.monotonic()
    sent = without_user = 0
    try:
        with EventProducer(settings) as producer, Progress(*columns) as progress:
            task = progress.add_task("", total=total, speed="")
            for value in (value for path in files for value in lines(path)):
                key = key_of(value)
                without_user += key is None
                producer.send_encoded(key, value)
                sent += 1
                if sent % 1000 == 0 or (rate and sent % max(1, int(rate / 20)) == 0):
                    elapsed = time.monotonic() - begin
                    progress.update(task, completed=sent, speed=f"{sent / max(elapsed, 1e-9):,.0f}/s")
                    if rate and sent / rate > elapsed:
                        time.sleep(sent / rate - elapsed)
            producer.flush()
            progress.update(task, completed=sent)
    except (DeliveryError, EventFileError) as error:
        _stop(error, 1)
    click.echo(f"{sent:,} events sent and acknowledged in {time.monotonic() - begin:.1f} s")
    if without_user:
        click.echo(f"{without_user:,} of them have no user; a worker will dead-letter those", err=True)


@cli.command(cls=_Configured, groups=("events",))
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
    declared = _usecase(usecase)
    import contextlib

    from detectors.offline import Offline
    from model.example_log import ExampleLogError
    from stream import history
    from stream.engine import TooManyBadRecords
    from stream.files import EventFileError

    if drift is not None and model is None:
        _stop("--drift watches a model; name its bundle with --model")
    scorer = None if model is None else _scorer(model, declared)
    for path in (scores, summary, drift):
        if path is not None and not path.exists():
            _takes_files(path.parent)
    watched = None if drift is None else Offline(_monitor(declared, (model,))(), drift)
    examples = None if log is None else _new_log(log, append=append)
    watch = None if watched is None else watched.watch
    outputs = history.Outputs(examples=examples, scores=scores, summary=summary, watch=watch)
    try:
        with watched or contextlib.nullcontext():
            history.run(declared, settings.events, scorer, files, outputs)
    except EventFileError as error:
        _stop(error)
    except TooManyBadRecords as error:
        kept = " and ".join(str(each) for each in (scores, log) if each is not None)
        _stop(f"{error}{f'. What came before them may stand in {kept}' if kept else ''}", 1)
    except (ExampleLogError, OSError) as error:
        _stop(error, 1)
    if watched is not None:
        watched.show()


@cli.command(cls=_Configured, groups=("events",))
@click.argument("usecase", type=EXISTING)
@click.argument("events", type=EXISTING, required=False)
@click.option(
    "--first",
    type=click.IntRange(min=1),
    default=100_000,
    show_default=True,
    help="check at most so many events",
)
def check(usecase: Path, events: Path | None, first: int, settings: Any) -> None:
    """Validate a use case, and with EVENTS (JSON Lines) a sample of events against it. Exit code 1: bad events."""
    import itertools

    declared = _usecase(usecase)
    from model.features import feature_spec
    from stream.layout import layout_of

    spec = feature_spec(declared)
    click.echo(
        f"{usecase}: ok. {len(declared.events)} event types, {len(declared.decisions)} decisions, "
        f"{len(spec.numeric)} numeric and {len(spec.categorical)} categorical inputs, "
        f"{layout_of(declared).dtype.itemsize} bytes a profile"
    )
    if events is None:
        return
    from stream.files import EventFileError, numbered_lines

    bad = 0
    total = 0
    seen: dict[str, int] = {}
    numbered = itertools.islice(numbered_lines(events), first)
    try:
        for number, verdict, detail in _verdicts(declared, settings, numbered):
            total += 1
            seen[verdict] = seen.get(verdict, 0) + 1
            if detail:
                bad += 1
                if seen[verdict] <= 3:
                    click.echo(f"{events}:{number}: {verdict}: {detail}", err=True)
    except EventFileError as error:
        _stop(error)
    click.echo(
        f"{events}: {total:,} events, {bad:,} bad: "
        + ", ".join(f"{name} {n:,}" for name, n in sorted(seen.items()))
    )
    if bad:
        raise SystemExit(1)


def _verdicts(
    declared: Any, settings: Any, numbered: Iterator[tuple[int, bytes]]
) -> Iterator[tuple[int, str, str]]:
    """(line, event type, "") of each good event and (line, reason, detail) of each bad one."""
    import time

    from stream.files import decoded

    names = list(declared.events)
    for records, columns, bad in decoded(declared, settings.events, numbered, int(time.time() * 1000)):
        yield from ((records[record.position].offset, record.reason.value, record.detail) for record in bad)
        yield from (
            (int(at), names[code], "") for at, code in zip(columns.offsets, columns.codes, strict=True)
        )


@cli.command()
@click.argument("events", type=EXISTING, nargs=-1, required=True)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default="explored",
    show_default=True,
    help="folder for usecase.toml, data-dictionary.md and data-dictionary.html",
)
@click.option("--force", is_flag=True, help="overwrite a usecase.toml that is there")
def explore(events: tuple[Path, ...], out: Path, force: bool) -> None:
    """Describe EVENTS (JSON Lines, may be gzipped) and propose a use case for them.

    Exit code 1: they hold no events, or none that a use case could be proposed from.
    """
    import time

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from deploy.settings import Events
    from model.usecase import UseCaseError, parse
    from stream.candidates import candidates
    from stream.dictionary import dictionary, summary
    from stream.explore import Explorer
    from stream.files import EventFileError, lines, numbered_lines
    from stream.mapping import FormatError
    from stream.proposal import chosen, propose, use_case_name, without_decision

    proposed = out / "usecase.toml"
    if proposed.exists() and not force:
        _stop(f"{proposed} is there already; name another folder with --out, or overwrite it with --force")
    _check_writable(out)
    explorer = Explorer(Events(), int(time.time() * 1000))
    columns = (TextColumn("reading"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    try:
        with Progress(*columns) as progress:
            task = progress.add_task("", total=sum(sum(1 for _ in lines(path)) for path in events))
            for path in events:
                explorer.read(str(path), progress.track(numbered_lines(path), task_id=task))
        findings = explorer.findings()
    except FormatError as error:
        _stop(error, 1)
    except EventFileError as error:
        _stop(error)
    found = candidates(findings.histories)
    markdown, html = dictionary(findings, found, [path.name for path in events])
    texts = {
        "usecase.toml": propose(findings, found, use_case_name(events[0].name)),
        "data-dictionary.md": markdown,
        "data-dictionary.html": html,
    }
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (out / name).write_text(text, encoding="utf-8")
    except OSError as error:
        _stop(error, 1)
    Console().print(summary(findings, found))
    for name in texts:
        click.echo(out / name)
    try:
        parse(texts["usecase.toml"], proposed)
    except UseCaseError as error:
        _stop(without_decision(findings, proposed) or error, 1)
    best = chosen(findings, found)
    if best is not None and best.against:
        click.echo(f"{proposed}: the decision {best.decision} is doubtful: {best.against}", err=True)


@cli.command()
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
    _usecase(usecase)
    if given["ablation"] and given["report"] is None:
        _stop("--ablation goes into a report; name one with --report")
    _check_examples(given["examples"])
    try:
        check_new(given["out"])
    except BundleError as error:
        _stop(error)
    for path in filter(None, (given["out"], given["report"])):
        _check_writable(path.parent)
    if given["checkpoint"]:
        _check_writable(given["checkpoint"])
    from model import fitting, training

    def say(line: Any) -> None:
        click.echo(msgspec.json.encode(line))

    def tell(line: Epoch) -> None:
        say({"fit": line.fit, **msgspec.structs.asdict(line)})

    settings = fitting.Settings(seed=seed)
    if epochs is not None:
        settings = msgspec.structs.replace(settings, epochs=epochs)
    moment = None if as_of is None else _ms(as_of)
    try:
        say(training.run(training.Order(usecase=usecase, settings=settings, as_of=moment, **given), tell))
    except (ExamplesError, BundleError, CheckpointError, OSError) as error:
        _stop(error)


def _ms(moment: datetime) -> int:
    return int(moment.replace(tzinfo=moment.tzinfo or UTC).timestamp() * 1000)


def _check_examples(where: str) -> None:
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
            _stop(f"{where}: no examples can be read there: {error.strerror}; correct the path")
    if begin == b"{" or (path.suffix in {".jsonl", ".json", ".gz"} and not path.is_dir()):
        _stop(
            f"{where}: examples are a Parquet file or an example log, got what looks like events (JSON Lines); make "
            "examples of them with `eddyline replay USECASE EVENTS --examples LOG`, and train on LOG"
        )


@cli.command()
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
    help="never, every=DURATION, alarm, verdict or refit; repeat it",
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
    declared = _usecase(usecase)
    _check_examples(examples)
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
        _stop(f"--policy: {error}")
    for path in filter(None, out.values()):
        _check_writable(path.parent)
    try:
        log = settled(read_examples(examples, feature_spec(declared)))
        check(declared, log, _ms(begin))  # before TensorFlow is loaded, which takes seconds
        learn = _learner(learner, declared, seed)
        order = Order(usecase=declared, begin=_ms(begin), policies=named, learner=learner, **out)
        sampling = Sampling(declared.drift, partitions=1)
        chosen = [
            sampling.take(str(user), at)
            for user, at in zip(log.user.tolist(), log.time.tolist(), strict=True)
        ]
        run(order, log, np.array(chosen), learn)
    except (ExamplesError, OSError) as error:
        _stop(error)


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


@cli.command()
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
    """Show the main job on real data: train on the first presentation, stream the rest, score live."""
    declared_at = example / "usecase.toml"
    declared = _usecase(declared_at)
    from stream.demo import DemoError, run

    try:
        run(example, declared, declared_at, directory, rate=rate, limit=limit)
    except DemoError as error:
        _stop(error, 1)
    except KeyboardInterrupt:
        _stop("stopped", 130)


def main() -> None:
    """Entry point of the console script."""
    sys.exit(cli())


if __name__ == "__main__":
    main()
