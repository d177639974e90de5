"""The pipeline: what a training job does, from its spec to a stored version with the gate's decision on it, and its result.

``python -m retrain.pipeline REGISTRY JOB`` does the job whose spec is in the registry, on this machine, as one of the ranks
that ``TF_CONFIG`` names if it names any. What it leaves is written once: the version's bundle, then ``gate.json`` and
``report.html`` beside it, then the job's ``result.json``. So whoever finds a result finds all of it, and a job that is started
again after it was killed, here or elsewhere, goes on where it was: it fits from its checkpoints, and takes up a bundle
that it had stored.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import numpy as np

from deploy.registry import Registry, RegistryError
from deploy.release import Placed
from model import bundle, usecase
from model.bundle import BundleError
from model.evaluation import fitted_rate
from model.example_log import ExampleLogError
from model.examples import Examples, ExamplesError
from model.features import FeatureSpec, Float32, feature_spec
from model.prior import corrected
from model.scorer import LiteRTScorer
from model.split import iso
from model.usecase import UseCase, UseCaseError
from retrain import dataset, gate
from retrain.dataset import Champion, Dataset
from retrain.gate import GateDecision
from retrain.learning import Beat, Keeper, Learnt, learn
from retrain.pulse import Pulse
from retrain.request import Weighting
from retrain.search import SearchError
from retrain.spec import Heartbeat, JobResult, JobSpec, Phase, folder

NAMES = 100  # that a version may get, of as many attempts
WAIT_S = 1.0  # between looks of a rank that has nothing left to do for the result

log = logging.getLogger(__name__)


class StoppedError(BaseException):
    """SIGTERM: the job is not wanted any more, and leaves no result."""


class _Job:
    """One run of a job: what it knows from its spec on."""

    def __init__(
        self, spec: JobSpec, registry: Registry, beat: Beat, work: Path, *, rank: int, ranks: int
    ) -> None:
        self.spec, self._registry, self._beat, self._work = spec, registry, beat, work
        self._rank, self._ranks = rank, ranks
        self.keeper = Keeper(registry, spec.checkpoints, work / "checkpoint", chief=rank == 0)

    def learn(self) -> tuple[UseCase, FeatureSpec, LiteRTScorer | None, Dataset, Learnt]:
        """Read and fit: what every rank does."""
        spec = self.spec
        self._beat(Heartbeat(at=0.0, phase=Phase.READING))
        case = usecase.parse(spec.usecase, f"job {spec.id}, use case")
        columns = feature_spec(case)
        scorer = None
        if spec.champion is not None:
            scorer = LiteRTScorer.load(self._registry.fetch(spec.champion))
            bundle.check_spec(scorer.bundle, columns)
        rows = self._read(case, None if scorer is None else Champion.of(scorer.bundle.manifest))
        for remark in rows.remarks:
            log.info("%s", remark)
        self.keeper.fetch()
        learnt = learn(
            rows,
            case,
            columns,
            self.keeper,
            self._beat,
            champion=None if scorer is None else scorer.bundle.directory,
            seed=spec.seed,
            ranks=self._ranks,
        )
        return case, columns, scorer, rows, learnt

    def run(self) -> JobResult:
        """All of it."""
        case, columns, scorer, rows, learnt = self.learn()
        from model import fitting, training  # noqa: PLC0415  # `learn` has imported them

        version, directory = self._stored()
        spec = msgspec.structs.replace(self.spec, version=version)
        holdout, count = rows.holdout, len(learnt.parts.whole)
        self._beat(Heartbeat(at=0.0, phase=Phase.JUDGING, rows=count))
        champion = _served(spec.champion, scorer, rows)
        others = {} if scorer is None else {"champion": champion}
        trained = training.challenger(
            learnt.twin, learnt.live, learnt.parts, columns, learnt.found, others, rows.reference
        )
        created = datetime.now(UTC).isoformat(timespec="seconds")
        if directory is None:
            directory = self._work / "bundle"
            training.write(
                trained, case, directory, version=spec.version, created=created, seed=learnt.settings.seed
            )
        live = LiteRTScorer.load(directory).score(holdout.numeric, holdout.categorical)
        twin = fitting.predict(learnt.twin, columns, holdout)
        decision = _judged(spec, case, columns, holdout, gate.Scores(champion, twin, live))
        decision = msgspec.structs.replace(
            decision, reasons=(*decision.reasons, *rows.remarks, learnt.remark)
        )
        log.info(
            "the gate %s: %s", "passes it" if decision.passed else "keeps the champion", decision.reasons
        )
        self._beat(Heartbeat(at=0.0, phase=Phase.STORING, rows=count))
        # Each attempt makes another bundle, and one that found no room leaves its mark and no version.
        self.keeper.settle(_mark(bundle.read(directory).digest), b"{}")
        placed = self._registry.add(directory)
        from model import report  # noqa: PLC0415  # matplotlib takes a second

        told = training.findings(trained, case, learnt.settings, version=spec.version, created=created)
        self._registry.create(_beside(spec, "report.html"), report.html(told).encode())
        self._registry.create(_beside(spec, "gate.json"), msgspec.json.encode(decision))
        return JobResult(placed=placed, gate=decision, rows=count)

    def _read(self, case: UseCase, champion: Champion | None) -> Dataset:
        """The rows, as of the moment that the first attempt, and of its ranks the first, saw them."""
        spec, name = self.spec, "as-of.json"
        known = spec.as_of
        if known is None and (found := self.keeper.read(name)) is not None:
            known = int(found)
        rows = dataset.read(spec.examples, case, spec.request, champion, as_of=known, seed=spec.seed)
        if known is None:
            moment = rows.usual.judging.as_of
            if (known := int(self.keeper.settle(name, str(moment).encode()))) != moment:
                return dataset.read(spec.examples, case, spec.request, champion, as_of=known, seed=spec.seed)
        return rows

    def _stored(self) -> tuple[str, Path | None]:
        """The version's name, and the bundle that an earlier attempt stored under it before it was killed, if any.

        An object store keeps the files of an upload that was cut off, and no other bundle can be stored there: then it is
        the next name.
        """
        names = (self.spec.version, *(f"{self.spec.version}-{number}" for number in range(2, NAMES + 1)))
        for name in names:
            there = self._registry.version(name)
            if there is None:
                if not self._registry.names(f"versions/{name}/bundle"):
                    return name, None
            elif self.keeper.read(_mark(there.digest)) is not None:
                return name, self._registry.fetch(there.placed)
            else:
                raise RegistryError(
                    f"{self._registry.url}: a version is written once, and {name} is another job's bundle there; ask for the "
                    "training again, with another version"
                )
        raise RegistryError(
            f"{self._registry.url}: each of {NAMES} attempts to store {self.spec.version} was cut off; see to the store, and "
            "ask for the training again"
        )


def run(spec: JobSpec, registry: Registry, beat: Beat) -> JobResult:
    """Do the job ``spec`` in this process, telling ``beat`` what it is at.

    An error that another attempt would meet again is a result that says what to do. Raises
    :class:`~deploy.registry.RegistryError` if it is the registry's.
    """
    began = time.monotonic()
    rank, ranks = _place()
    with tempfile.TemporaryDirectory(prefix="eddyline-job-") as work:
        try:
            found = _Job(spec, registry, beat, Path(work), rank=rank, ranks=ranks).run()
        except (ExamplesError, ExampleLogError, UseCaseError, BundleError, SearchError) as error:
            found = JobResult(error=str(error))
    return msgspec.structs.replace(found, seconds=round(time.monotonic() - began, 3))


def _served(placed: Placed | None, scorer: LiteRTScorer | None, rows: Dataset) -> Float32:
    """What is to be beaten on the holdout: the champion's scores as served, or the rate of positives before it, for all."""
    holdout = rows.holdout
    if placed is None or scorer is None:
        known = rows.usual.judging.fitting
        return np.full(len(holdout), fitted_rate(known.label, known.sample_weight), np.float32)
    score = scorer.score(holdout.numeric, holdout.categorical)
    if placed.correction is None:
        return score
    return corrected(score, placed.correction.before, placed.correction.now)


def _judged(
    spec: JobSpec, case: UseCase, columns: FeatureSpec, holdout: Examples, scores: gate.Scores
) -> GateDecision:
    request = spec.request
    terms = gate.Terms(
        champion="" if spec.champion is None else spec.champion.version,
        challenger=spec.version,
        margin=case.retrain.margin,
        better=request.weighting is not Weighting.ROLLING or bool(request.slice),
        slice=request.slice,
        value=request.value,
    )
    return gate.judge(_holdout(holdout, case, columns), scores, terms, spec.seed)


def _holdout(rows: Examples, case: UseCase, columns: FeatureSpec) -> gate.Holdout:
    sliced = {*case.quality.slices, *case.drift.slices}
    slices = {
        column.name: rows.categories[:, j]
        for j, column in enumerate(columns.categorical)
        if column.name in sliced
    }
    return gate.Holdout(rows.label, rows.user, slices, iso(rows.time[0]), iso(rows.time[-1]))


def _beside(spec: JobSpec, name: str) -> str:
    return f"versions/{spec.version}/{name}"


def _mark(digest: str) -> str:
    """The file of the checkpoint that tells a bundle of this job from another's."""
    return f"stored-{digest}.json"


def _place() -> tuple[int, int]:
    """This process's rank, and of how many."""
    config: dict[str, Any] = json.loads(os.environ.get("TF_CONFIG") or "{}")
    ranks = sum(map(len, config.get("cluster", {}).values())) or 1
    return int(config.get("task", {}).get("index", 0)), ranks


def main(arguments: Sequence[str]) -> int:
    """Do the job that is named, unless it has a result; 0 if it has one then."""
    parser = argparse.ArgumentParser(prog="python -m retrain.pipeline", description=__doc__)
    parser.add_argument("registry", help="folder or URL")
    parser.add_argument("job", help="id; its spec is in the registry")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # it tells of every collective
    signal.signal(signal.SIGTERM, _stop)
    registry, result = Registry(given.registry), f"{folder(given.job)}/result.json"
    try:
        if registry.read(result) is not None:
            log.info("%s is there already", result)
            return 0
        data = registry.read(f"{folder(given.job)}/spec.json")
        if data is None:
            log.error(
                "%s/%s: there is no such job; is it this registry's?", given.registry, folder(given.job)
            )
            return 2
        spec = msgspec.json.decode(data, type=JobSpec)
        rank, ranks = _place()
        if rank:
            return _follow(spec, registry, result, rank, ranks)
        with Pulse(registry, f"{spec.folder}/heartbeat.json") as pulse:
            found = run(spec, registry, pulse)
        registry.create(result, msgspec.json.encode(found))
    except (RegistryError, msgspec.MsgspecError) as error:
        log.error("%s", error)  # noqa: TRY400  # it says where and what to do; a traceback does not
        return 1
    except StoppedError:
        log.info("stopped")
        return 128 + signal.SIGTERM
    if found.error:
        log.error("%s", found.error)
    return 0


def _follow(spec: JobSpec, registry: Registry, result: str, rank: int, ranks: int) -> int:
    """Share the fits of the chief, then wait until it has left a result: peers that end early are failures to TensorFlow."""
    with tempfile.TemporaryDirectory(prefix="eddyline-job-") as work:
        try:
            _Job(spec, registry, lambda _: None, Path(work), rank=rank, ranks=ranks).learn()
        except (ExamplesError, ExampleLogError, UseCaseError, BundleError, SearchError) as error:
            log.info("%s", error)  # the chief's result will say it
    while registry.read(result) is None:
        time.sleep(WAIT_S)
    return 0


def _stop(*_: object) -> NoReturn:
    raise StoppedError


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
