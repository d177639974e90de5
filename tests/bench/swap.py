"""``make bench-swap``: what a swap of the model costs the scoring that goes on meanwhile.

``python -m tests.bench.swap`` prints a table and writes ``bench/results/swap.json``. Two versions take turns, 50 swaps, each
a release of a registry in a folder, while the worker's own engine scores 20 000 events a second; phases with swaps
and phases without alternate in one run. Every score is then compared with what the version that it names gives.
Beside it the same with a SavedModel in a TensorFlow process. About 3 minutes.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
from rich.console import Console
from rich.table import Table

from deploy import transitions
from deploy.registry import Registry
from deploy.release import Placed, Release
from model import usecase
from model.features import CategoryHasher, FeatureSpec, feature_spec
from model.scorer import LiteRTScorer
from stream.scoring import Score
from tests.bench import report
from tests.bench.swap_child import EDDYLINE, SAVED_MODEL, Measured, Plan
from tests.bench.workload import USECASE, Workload, train

RATE, USERS = 20_000, 20_000
PHASE_S, PAIRS, SWAPS = 2.5, 10, 5  # 50 swaps, one every half second
WARM_S, WARM_SWAPS = 16.0, 10
TRAINING = Workload(50_000, 5_000)
TOLERANCE = 1e-5  # of a SavedModel's score; ours are to be equal to the bit
TARGETS = {"p99_ratio": 1.1, "memory_growth_mib": 5.0, "lost": 0.0, "wrong": 0.0}


def bundles(directory: Path) -> tuple[Path, Path]:
    """Two versions of the bench's model, from two seeds."""
    first = train(TRAINING, directory)
    second = directory / "second"
    if not second.exists():
        command = [sys.executable, "-m", "eddyline", "train", USECASE, directory / "examples.parquet"]
        options = ["--out", second, "--version", "2", "--seed", "1", "--epochs", "3"]
        with (directory / "second.log").open("wb") as log:
            subprocess.run(
                [*map(str, command), *map(str, options)], check=True, cwd=report.ROOT, stdout=log, stderr=log
            )
    return first, second


def alone(now: Release, placed: Placed) -> Release:
    """``placed`` live and nothing beside it, so that the other is let go, and loaded anew when its turn comes."""
    why: transitions.Why = {
        "reason": "bench",
        "by": "bench",
        "created": datetime.now(UTC).isoformat(),
    }
    promoted = transitions.promote(now, placed, share=0.1, **why)
    return promoted if promoted.beside is None else transitions.drop(promoted, **why)


def run(contestant: str, versions: tuple[Path, Path], directory: Path, pairs: int) -> tuple[Plan, Measured]:
    """Let ``contestant`` score in a process of its own, and publish to its registry when it asks for that."""
    registry = Registry(str(directory / f"{contestant}-registry"))
    placed = [registry.add(each) for each in versions]
    registry.publish(lambda now: alone(now, placed[0]))
    plan = Plan(
        contestant=contestant,
        registry=registry.url,
        bundles=(str(versions[0]), str(versions[1])),
        scores=str(directory / f"{contestant}.jsonl"),
        users=USERS,
        rate=RATE,
        phase_s=PHASE_S,
        pairs=pairs,
        swaps=SWAPS,
        warm_s=WARM_S,
        warm_swaps=WARM_SWAPS,
    )
    command = [sys.executable, "-m", "tests.bench.swap_child", msgspec.json.encode(plan).decode()]
    turn, last = 1, ""
    with (
        (directory / f"{contestant}.log").open("wb") as log,
        subprocess.Popen(command, cwd=report.ROOT, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            last = line
            if line == "publish\n":
                chosen = placed[turn]
                registry.publish(lambda now, chosen=chosen: alone(now, chosen))  # type: ignore[misc]
                turn = 1 - turn
    if process.returncode:
        raise RuntimeError(f"{contestant} failed: {(directory / f'{contestant}.log').read_text()[-2000:]}")
    return plan, msgspec.json.decode(last, type=Measured)


def judged(plan: Plan, versions: Sequence[Path], tolerance: float) -> tuple[int, int, dict[str, int]]:
    """Decisions without a score, scores that the version they name does not give, and scores by version."""
    spec = feature_spec(usecase.load(USECASE))
    scorers = {each.version: each for each in map(LiteRTScorer.load, versions)}
    found: dict[str, list[Score]] = {}
    decode = msgspec.json.Decoder(Score).decode
    ids = set()
    with Path(plan.scores).open("rb") as file:
        for line in file:
            score = decode(line)
            ids.add(score.id)
            found.setdefault(score.model, []).append(score)
    wrong = sum(len(scores) for version, scores in found.items() if version not in scorers)
    for version, scorer in scorers.items():
        wrong += _wrong(found.get(version, []), scorer, spec, tolerance)
    lost = Workload(plan.events, plan.users).decisions - len(ids)
    return lost, wrong, {version: len(scores) for version, scores in sorted(found.items())}


def _wrong(scores: Sequence[Score], scorer: LiteRTScorer, spec: FeatureSpec, tolerance: float) -> int:
    if not scores:
        return 0
    numeric = np.array(
        [[each.features[name] for name in spec.numeric] for each in scores], np.float32
    )  # [n, F]; null becomes NaN
    columns = [[each.features[column.name] for each in scores] for column in spec.categorical]
    ids = CategoryHasher(spec)(columns, len(scores))  # type: ignore[arg-type]  # strings, of a category
    expected = scorer.score(numeric, ids)
    given = np.array([each.score for each in scores], np.float32)
    return int((~(np.abs(given - expected) <= tolerance)).sum())


def figures(measured: Measured, lost: int, wrong: int) -> dict[str, float]:
    """The numbers of one contestant."""
    idle, swapping = np.array(measured.idle), np.array(measured.swapping)
    p99_idle, p99_swapping = (float(np.percentile(each, 99)) for each in (idle, swapping))
    return {
        "p99_ratio": p99_swapping / p99_idle,
        "p99_idle_ms": p99_idle,
        "p99_swapping_ms": p99_swapping,
        "p50_idle_ms": float(np.median(idle)),
        "p50_swapping_ms": float(np.median(swapping)),
        "max_idle_ms": float(idle.max()),
        "max_ms": float(swapping.max()),
        "swaps": measured.swaps,
        "swap_ms": measured.swap_ms,
        "memory_growth_mib": measured.memory_growth_mib,
        "memory_mib": measured.memory_mib,
        "decisions": len(idle) + len(swapping),
        "lost": lost,
        "wrong": wrong + measured.failures,
    }


def table(found: dict[str, dict[str, float]]) -> Table:
    """The figures side by side."""
    shown = Table(title=f"{PAIRS * SWAPS} swaps at {RATE:,} events/s; latency from due to scored, ms")
    for column in ("", *found, "target"):
        shown.add_column(column, justify="right" if column else "left")
    for name in next(iter(found.values())):
        target = f"<= {TARGETS[name]:g}" if name in TARGETS else ""
        shown.add_row(name, *(f"{each[name]:,.4g}" for each in found.values()), target)
    return shown


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; see the module docstring."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.swap", description="Measure hot swaps.")
    parser.add_argument("--pairs", type=int, default=PAIRS, help="of phases, without and with swaps")
    parser.add_argument(
        "--models", type=Path, help="folder to keep the two versions in; they are trained once"
    )
    parser.add_argument("--only", choices=(EDDYLINE, SAVED_MODEL), help="one contestant; nothing is written")
    given = parser.parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 100, highlight=False)
    contestants = [given.only] if given.only else [EDDYLINE, SAVED_MODEL]
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="bench-swap-", ignore_cleanup_errors=True) as temporary:
        directory = Path(temporary)
        models = given.models or directory
        models.mkdir(parents=True, exist_ok=True)
        console.print("two versions: training")
        versions = bundles(models)
        for contestant in contestants:
            console.print(f"{contestant}: {given.pairs * SWAPS} swaps")
            plan, measured = run(contestant, versions, directory, given.pairs)
            lost, wrong, by = judged(plan, versions, 0.0 if contestant == EDDYLINE else TOLERANCE)
            console.print(f"  scores by version: {by}")
            found[contestant] = figures(measured, lost, wrong)
    console.print(table(found))
    if given.only or given.pairs != PAIRS:
        return 0
    both = found[EDDYLINE] | {f"{SAVED_MODEL}_{name}": value for name, value in found[SAVED_MODEL].items()}
    rounded = {name: float(f"{value:.5g}") for name, value in both.items()}
    path = report.write("swap", rounded, report.versions(("ai-edge-litert", "tensorflow-cpu", "keras")))
    console.print(f"written to {path.relative_to(report.ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
