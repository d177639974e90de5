"""A world that drifts when told to: a reference, and the samples of the decisions after it. For the monitor's tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from detectors.samples import SampleRecord
from model.bundle import MODEL, Golden, Manifest, write_features, write_golden, write_manifest
from model.features import feature_spec
from model.reference import Reference, write
from model.usecase import UseCase, parse

START_MS = 1_700_000_000_000
STEP_MS = 60_000
LAG = 200  # decisions until a label is known
PLANS = (0.6, 0.395, 0.005)  # shares of basic, plus and rare

USECASE = """
name = "shop"
[events.offer]
[events.view]
[events.buy]
[decisions.offer]
outcome = "buy"
window = "3h"
[context]
plan = "category"
price = "number"
age = "number"
[features]
views = { kind = "decayed_count", events = ["view"], half_life = "7d" }
price = { kind = "context", field = "price" }
age = { kind = "context", field = "age" }
plan = { kind = "context", field = "plan", buckets = 8 }
[drift]
events_between_false_alarms = 5000
block = "1h"
reference = 2000
labels = 400
slices = ["plan"]
witnesses = []
"""


def usecase(text: str = USECASE) -> UseCase:
    """The use case of this world."""
    return parse(text)


def _draw(n: int, seed: int, shift: float = 0.0, flip: float = 0.0) -> tuple[Any, Any, Any, Any]:
    random = np.random.default_rng(seed)
    numeric = random.normal(size=(n, 3))  # [n, F]
    numeric[:, 0] += shift
    numeric[random.random((n, 3)) < 0.03] = np.nan
    plan = np.array(["basic", "plus", "rare"], np.object_)[random.choice(3, n, p=PLANS)]
    odds = np.nan_to_num(numeric) @ np.array([1.0, -0.5, 0.0])
    score = 1 / (1 + np.exp(-odds))
    true = 1 / (1 + np.exp(-odds * (1 - 2 * flip)))
    label = (random.random(n) < true).astype(np.float32)
    return numeric.astype(np.float32), plan, score.astype(np.float32), label


def reference(n: int = 2000, seed: int = 0) -> Reference:
    """What the model was trained on."""
    numeric, plan, score, label = _draw(n, seed)
    return Reference(
        numeric=numeric,
        categorical=plan[:, None],
        score=score,
        label=label,
        time=START_MS - STEP_MS * np.arange(n, 0, -1, dtype=np.int64),
        usual=np.zeros((3, 4), np.float32),
    )


def bundle(directory: Path, version: str = "v1", seed: int = 0) -> Path:
    """A bundle of that model, as far as the monitor reads one: with a network that cannot score."""
    directory.mkdir()
    (directory / MODEL).write_bytes(b"no network")
    spec = feature_spec(usecase())
    write_features(directory, spec)
    empty = np.zeros((1, len(spec.numeric)), np.float32), np.zeros((1, len(spec.categorical)), np.int32)
    write_golden(directory, Golden(*empty, np.zeros(1, np.float32)))
    write(directory, reference(seed=seed))
    manifest = Manifest(
        usecase="shop", version=version, created="2023-11-14T00:00:00Z", metrics={}, buckets=(1,)
    )
    write_manifest(directory, manifest)
    return directory


def sample(number: int = 0, **fields: Any) -> dict[str, Any]:
    """A decision as it was scored, as the stream writes it."""
    return {
        "id": f"d{number}",
        "type": "offer",
        "user": f"u{number % 97}",
        "item": None,
        "time": START_MS + STEP_MS * number,
        "score": 0.5,
        "model": "v1",
        "profile_offset": number,
        "features": {"views": 1.0, "price": 2.0, "age": None, "plan": "basic"},
    } | fields


def matured(decision: dict[str, Any], label: int) -> dict[str, Any]:
    """The same with its label."""
    closes = decision["time"] + 10_800_000
    return decision | {"label": label, "weight": 1.0, "outcome_time": None, "closes": closes}


def samples(
    n: int,
    change: int | None = None,
    *,
    model: str = "v1",
    seed: int = 1,
    shift: float = 1.0,
    flip: float = 0.0,
) -> list[bytes]:
    """Samples of ``n`` decisions and of their labels, ``LAG`` decisions later; drifted from number ``change`` on."""
    change = n if change is None else change
    parts = [_draw(change, seed), _draw(n - change, seed + 1, shift, flip)]
    numeric, plan, score, label = (np.concatenate(each) for each in zip(*parts, strict=True))
    found: list[bytes] = []
    decisions: list[dict[str, Any]] = []
    for number in range(n):
        views, price, age = (None if np.isnan(value) else value for value in numeric[number].tolist())
        features = {"views": views, "price": price, "age": age, "plan": plan[number]}
        decisions.append(sample(number, model=model, score=float(score[number]), features=features))
        found.append(msgspec.json.encode(decisions[-1]))
        if number >= LAG:
            old = number - LAG
            found.append(msgspec.json.encode(matured(decisions[old], int(label[old]))))
    return found


def records(values: list[bytes], first: int = 0) -> list[SampleRecord]:
    """``values`` as they stand in the topic from offset ``first`` on."""
    return [SampleRecord(offset, 0, value) for offset, value in enumerate(values, first)]
