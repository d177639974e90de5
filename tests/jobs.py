"""What the tests of training jobs are made of: examples of a world that changed, a registry with a champion, and a job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from deploy.registry import Registry
from deploy.release import Placed
from retrain.request import RetrainRequest, Trigger, Weighting
from retrain.spec import JobSpec
from tests.builders import ROWS, START, STEP, USECASE, examples, replaced

CHANGE = START + STEP * ROWS  # ms: where the champion's examples end


def later(n: int, seed: int = 7, *, flipped: bool = False, first: int = ROWS) -> pa.Table:
    """``n`` examples that follow the ``first`` usual ones; with ``flipped`` their law is turned round."""
    table = examples(n, seed)
    for name in ("time", "closes", "outcome_time"):
        table = replaced(table, name, pa.compute.add(table.column(name), STEP * first))
    if flipped:
        table = replaced(table, "label", (1 - table.column("label").to_numpy()).astype(np.int8))
    return replaced(table, "id", [f"later-{first}-{i}" for i in range(n)])


def world(folder: Path, after: pa.Table) -> str:
    """A Parquet file of the champion's examples and those ``after`` them."""
    path = folder / "world.parquet"
    pq.write_table(pa.concat_tables([examples(), after]), path)
    return str(path)


def request(**fields: Any) -> RetrainRequest:
    """A request with what a test does not care about."""
    given: dict[str, Any] = {"id": "r1", "trigger": Trigger.HAND, "reason": "", "by": "test", "asked": 0}
    return RetrainRequest(**given | fields)


def since(**fields: Any) -> RetrainRequest:
    """A request for what came since the change."""
    return request(trigger=Trigger.VERDICT, weighting=Weighting.SINCE, since=CHANGE, **fields)


def ordered(
    registry: Registry, url: str, examples: str, champion: Placed | None, wish: RetrainRequest | None = None,
    **fields: Any,
) -> JobSpec:  # fmt: skip
    """A job's spec, which lies in the registry at ``url``."""
    given: dict[str, Any] = {
        "request": wish or request(),
        "version": "8",
        "generation": 1,
        "usecase": USECASE,
    }
    given |= {"examples": examples, "registry": url, "champion": champion, "seed": 1}
    spec = JobSpec(**given | fields)
    registry.write(f"{spec.folder}/spec.json", msgspec.json.encode(spec))
    return spec
