"""What the demo shows while it streams: a table of what the processes report, with the frozen model's quality beside."""

from __future__ import annotations

import itertools

from rich.table import Table
from rich.text import Text

from stream.chronicle import Quality
from stream.demo_system import Report


def table(
    reports: dict[str, Report], sent: int, speed: float, elapsed: float, quality: Quality | None, date: str
) -> Table:
    """The state of the system after ``elapsed`` s, ``sent`` events and up to event time ``date``; ``quality`` is of the latest decisions."""
    worker, monitor, trainer = (reports[name] for name in ("worker", "monitor", "trainer"))
    shown = Table(
        title=f"Eddyline: {elapsed:.0f} s of streaming, now at {date or 'the beginning'}",
        show_header=False,
        min_width=86,
    )
    shown.add_column(style="bold")
    shown.add_column()
    shown.add_row(
        "events", f"{worker.total('eddyline_records_total'):,.0f} of {sent:,} sent   {speed:,.0f}/s"
    )
    shown.add_row(
        "profiles",
        f"{worker.total('eddyline_profiles'):,.0f} people, {worker.total('eddyline_profile_bytes') / 2**20:.1f} MiB",
    )
    models = worker.by("eddyline_decisions_total", "model")
    shown.add_row(
        "decisions",
        ", ".join(f"{value:,.0f} by model {name}" for name, value in models.items()) or "none yet",
    )
    shown.add_row("scores", _sparkline(worker))
    shown.add_row(
        "event to score",
        f"half within {worker.quantile('eddyline_event_to_score_seconds', 0.5) * 1000:.0f} ms, "
        f"99 % within {worker.quantile('eddyline_event_to_score_seconds', 0.99) * 1000:.0f} ms",
    )
    shown.add_row("outcomes", f"{worker.total('eddyline_examples_total'):,.0f} decisions with a label")
    if quality is not None:
        shown.add_row(
            "log-loss",
            f"{quality.served:.3f} served, {quality.frozen:.3f} had the first model stayed; latest {quality.decisions:,}",
        )
    kinds = monitor.by("eddyline_drift_verdicts_total", "kind")
    shown.add_row(
        "verdicts", ", ".join(f"{value:.0f} {name}" for name, value in kinds.items() if value) or "none yet"
    )
    states = trainer.by("eddyline_retrain_state", "state")
    shown.add_row(
        "retrains", ", ".join(f"{value:.0f} {name}" for name, value in states.items() if value) or "none yet"
    )
    changes = trainer.by("eddyline_releases_total", "change")
    shown.add_row(
        "releases",
        ", ".join(f"{value:.0f} {name}" for name, value in changes.items() if value and name != "claim")
        or "the first model",
    )
    bad = worker.by("eddyline_dead_letters_total", "reason")
    shown.add_row("dead letters", ", ".join(f"{value:.0f} {name}" for name, value in bad.items()) or "none")
    return shown


def _sparkline(report: Report) -> Text:
    """The score distribution from 0 to 1 as a bar a twentieth."""
    counts = [n for _, n in report.buckets("eddyline_score")][:20]
    each = [after - before for before, after in itertools.pairwise([0.0, *counts])]
    top = max(each, default=0)
    bars = "".join("▁▂▃▄▅▆▇█"[round(7 * n / top)] for n in each) if top else "none yet"
    return Text(f"0 {bars} 1" if top else bars)
