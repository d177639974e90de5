"""Commands of the stream: worker, topics, produce, check, explore. They import what they need when they run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from deploy.command import EXISTING, FOLDER, Configured, check_writable, declared_at, scorer_of, stop


@click.command(cls=Configured, groups=("kafka", "topics", "engine", "events", "registry"))
@click.argument("usecase", type=EXISTING)
@click.option(
    "--model",
    type=FOLDER,
    help="score with this bundle and no other; without it, with what the registry says is live, or priors",
)
def worker(usecase: Path, model: Path | None, settings: Any) -> None:
    """Read events, keep profiles, score decisions. Start as many as the events topic has partitions."""
    declared = declared_at(usecase)
    from deploy import follower, live, metrics, topics
    from stream import app as stream_app

    try:
        partitions = topics.check(settings)
    except topics.TopicError as error:
        stop(error)
    if settings.engine.metrics_port:
        metrics.serve(settings.engine.metrics_port)
    if model is not None:
        source = live.fixed(scorer_of(model, declared))
        stream_app.run(stream_app.create_app(settings, declared, source, partitions))
        return
    # The first look comes before the group is joined: a worker's first event is scored by what is live.
    following = follower.follow(settings, declared)
    try:
        stream_app.run(stream_app.create_app(settings, declared, following.source, partitions))
    finally:
        following.stop()


@click.command(cls=Configured, groups=("kafka", "topics", "engine"))
def topics(settings: Any) -> None:
    """Create the topics that are missing, with matching partitions; the changelogs are compacted."""
    from deploy import topics as deployed

    try:
        created = deployed.create(settings)
        deployed.check(settings)
        counts = deployed.partition_counts(settings)
    except deployed.TopicError as error:
        stop(error)
    for plan in deployed.plans(settings):
        state = "created" if plan.name in created else "there already"
        count = counts[plan.name]
        click.echo(f"{plan.name}: {count} partition{'s' if count > 1 else ''}, {state}")


@click.command(cls=Configured, groups=("kafka", "topics"))
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
            stop(f"there is no topic {settings.topics.events}; create it with `eddyline topics`")
    except deployed.TopicError as error:
        stop(error)
    try:
        total = sum(sum(1 for _ in lines(path)) for path in files)
    except EventFileError as error:
        stop(error)
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
        stop(error, 1)
    click.echo(f"{sent:,} events sent and acknowledged in {time.monotonic() - begin:.1f} s")
    if without_user:
        click.echo(f"{without_user:,} of them have no user; a worker will dead-letter those", err=True)


@click.command(cls=Configured, groups=("events",))
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

    declared = declared_at(usecase)
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
        stop(error)
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


@click.command()
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
        stop(f"{proposed} is there already; name another folder with --out, or overwrite it with --force")
    check_writable(out)
    explorer = Explorer(Events(), int(time.time() * 1000))
    columns = (TextColumn("reading"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    try:
        with Progress(*columns) as progress:
            task = progress.add_task("", total=sum(sum(1 for _ in lines(path)) for path in events))
            for path in events:
                explorer.read(str(path), progress.track(numbered_lines(path), task_id=task))
        findings = explorer.findings()
    except FormatError as error:
        stop(error, 1)
    except EventFileError as error:
        stop(error)
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
        stop(error, 1)
    Console().print(summary(findings, found))
    for name in texts:
        click.echo(out / name)
    try:
        parse(texts["usecase.toml"], proposed)
    except UseCaseError as error:
        stop(without_decision(findings, proposed) or error, 1)
    best = chosen(findings, found)
    if best is not None and best.against:
        click.echo(f"{proposed}: the decision {best.decision} is doubtful: {best.against}", err=True)
