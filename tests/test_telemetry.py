"""Facts about stream/telemetry.py: what the worker's metrics say of each run."""

from __future__ import annotations

from prometheus_client import REGISTRY

from deploy.live import Live, Model, Source
from deploy.settings import Events
from stream.engine import Engine
from stream.quality import MODELS
from stream.telemetry import Telemetry
from tests.events import NOW_MS, START_MS, records, state, stream, usecase
from tests.test_scoring import Constant


def decisions(model: str) -> float | None:
    """Decisions counted for a version; None without a series."""
    return REGISTRY.get_sample_value("eddyline_decisions_total", {"model": model})


def test_series_of_versions_that_are_gone_are_removed() -> None:
    """However many versions take turns, the last few have a series each, with all of their decisions."""
    source = Source(Live())
    engine, held, telemetry = Engine(usecase(), Events(), source), state(), Telemetry(usecase())
    events = records(stream(1000 * (MODELS + 3), users=50))
    counts = []
    for number in range(MODELS + 3):
        source.current = Live(model=Model(Constant(f"turn-{number}", 0.5)))
        processed = engine.process(held, events[1000 * number : 1000 * (number + 1)], NOW_MS)
        telemetry.written(processed, START_MS / 1000)
        counts.append(len(processed.scores))
    assert [None] * 3 + counts[3:] == [decisions(f"turn-{number}") for number in range(MODELS + 3)]
