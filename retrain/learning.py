"""The fits of a training job: a twin to judge, and the model to go live, each going on from its checkpoint.

Called by :mod:`retrain.pipeline`. Three fits, in this order: ``validated`` finds out after how many epochs to stop, and
``anew``, if there are two ways, which one is better; ``judged``, the twin, is fitted so often to all that was known when
the holdout began; ``live`` to the holdout as well. Each one's state is a file of its own, here and
in the registry, so that a job that was killed goes on wherever it is started again. TensorFlow is imported on the first call.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from deploy.registry import Registry, RegistryError
from model.checkpoint import CheckpointError, Epoch, digest_of
from model.features import FeatureSpec
from model.split import Parts
from model.usecase import UseCase
from retrain.dataset import OLD, Dataset, Fitting
from retrain.search import search
from retrain.spec import Heartbeat, Phase

# A warm start's, as a share of a cold one's: it has less far to go.
WARM = 0.25
SEARCHED = 0.5  # of the use case's budget, at most, for the search

log = logging.getLogger(__name__)

Beat = Callable[[Heartbeat], None]


class Learnt(NamedTuple):
    """The ``twin`` and the ``live`` model, of Keras, the ``parts`` they were fitted to and are judged by, and how that was done."""

    twin: Any
    live: Any
    parts: Parts
    found: Any
    settings: Any
    remark: str


class Keeper:
    """The checkpoints of a job's fits: files in ``folder``, and what ``path`` of the registry has of them.

    Of several processes the ``chief`` alone writes to the registry; all read.
    """

    def __init__(self, registry: Registry, path: str, folder: Path, *, chief: bool = True) -> None:
        self._registry, self._path, self.folder, self._chief = registry, path, folder, chief

    def fetch(self) -> None:
        """Get what an earlier attempt left."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in self._registry.names(self._path):
            data = self._registry.read(name)
            if data is not None:
                (self.folder / name.rpartition("/")[2]).write_bytes(data)

    def read(self, name: str) -> bytes | None:
        """A file of the checkpoint as the registry has it."""
        return self._registry.read(f"{self._path}/{name}")

    def settle(self, name: str, data: bytes) -> bytes:
        """``data`` if nobody was quicker to say what ``name`` is, else what they said."""
        self._registry.create(f"{self._path}/{name}", data)
        found = self.read(name)
        return data if found is None else found

    def keep(self, name: str) -> None:
        """Send the file ``name``; that it cannot be sent costs no more than having to fit again."""
        if not self._chief:
            return
        try:
            self._registry.write(f"{self._path}/{name}", (self.folder / name).read_bytes())
        except RegistryError as error:
            log.warning("the checkpoint stays on this machine: %s", error)


def learn(
    dataset: Dataset,
    case: UseCase,
    spec: FeatureSpec,
    keeper: Keeper,
    beat: Beat,
    *,
    champion: Path | None,
    seed: int,
    ranks: int,
) -> Learnt:
    """Do the three fits, over all devices and ``ranks`` processes, starting from the bundle ``champion`` where that serves."""
    from model import devices, fitting, training  # noqa: PLC0415  # TensorFlow takes 10 s, and refusals need none

    strategy = devices.strategy()
    start = None if champion is None else training.earlier(champion)
    plain = fitting.Settings(seed=seed, balance=case.training.balance)
    with strategy.scope():
        if case.retrain.trials and ranks == 1:
            plain = _searched(dataset, case, spec, keeper, beat, plain)
        rows = len(dataset.usual.judging.whole)
        ways = {"validated": _Way(dataset.usual, plain, None)}
        if start is not None:
            warm = msgspec.structs.replace(plain, learning_rate=WARM * plain.learning_rate)
            ways = {"validated": _Way(dataset.usual, warm, start)}
        if dataset.anew is not None:
            ways["anew"] = _Way(dataset.anew, plain, None)

        def fit(name: str, epochs: int, work: Callable[[Callable[[Epoch], None]], Any]) -> Any:
            def tell(line: Epoch) -> None:
                keeper.keep(f"{name}.npz")
                loss = line.loss if line.validation_log_loss is None else line.validation_log_loss
                log.info("%s: epoch %d, log-loss %.4f", name, line.epoch, loss)
                beat(
                    Heartbeat(
                        at=0.0, phase=Phase.FITTING, epoch=line.epoch, epochs=epochs, loss=loss, rows=rows
                    )
                )

            beat(Heartbeat(at=0.0, phase=Phase.FITTING, epochs=epochs, rows=rows))
            return _resumed(keeper.folder / f"{name}.npz", lambda: work(tell))

        def validated(name: str, way: _Way) -> Any:
            _, found = fit(
                name,
                way.settings.epochs,
                lambda tell: training.fit(
                    way.rows.stopping,
                    spec,
                    case.model,
                    way.settings,
                    tell,
                    checkpoint=keeper.folder,
                    start=way.start,
                    name=name,
                ),
            )
            return found

        def finished(name: str, parts: Parts) -> Any:
            return fit(
                name,
                found.epoch,
                lambda tell: training.fit_live(
                    parts,
                    spec,
                    case.model,
                    way.settings,
                    tell,
                    epochs=found.epoch,
                    checkpoint=keeper.folder,
                    start=way.start,
                    name=name,
                ),
            )

        tried = {name: validated(name, way) for name, way in ways.items()}
        best = min(tried, key=lambda name: _loss(tried[name]))
        way, found = ways[best], tried[best]
        remark = f"fitted {'from the weights of the champion on' if way.start is not None else 'anew'}, {found.epoch} epochs"
        if best == "anew":
            remark += (
                f", with the rows before the change counting {OLD} of those since: a log-loss of {_loss(found):.4f} on the "
                f"rows that stop it, against {_loss(tried['validated']):.4f}"
            )
        twin, live = finished("judged", way.rows.stopping), finished("live", way.rows.judging)
        log.info("live model: %s", digest_of(live.get_weights()))  # the same in all ranks
    if ranks > 1:  # what belongs to a strategy is saved by all of its processes, or not at all
        twin, live = (training.alone(each, spec, case.model) for each in (twin, live))
    return Learnt(twin, live, way.rows.judging, found, way.settings, remark)


class _Way(NamedTuple):
    """A way to fit: to which rows, how, and from which model on."""

    rows: Fitting
    settings: Any
    start: Any


def _loss(found: Any) -> float:
    """The least log-loss on the rows that stopped it."""
    return min(float(each.validation_log_loss) for each in found.epochs if each.best)


def _resumed(path: Path, fit: Callable[[], Any]) -> Any:
    """What ``fit`` gives, anew if the checkpoint at ``path`` is of other rows or settings, as when late labels came."""
    try:
        return fit()
    except CheckpointError as error:
        if not path.exists():
            raise
        log.warning("%s; it is fitted from the start", error)
        path.unlink()
        return fit()


def _searched(
    dataset: Dataset, case: UseCase, spec: FeatureSpec, keeper: Keeper, beat: Beat, settings: Any
) -> Any:
    """``settings`` with what a search found, this attempt's or an earlier one's."""
    from model import fitting, training  # noqa: PLC0415

    name, done = "settings.json", 0
    if (kept := keeper.read(name)) is not None:
        return msgspec.json.decode(kept, type=fitting.Settings)

    def loss(choice: Any) -> float:
        nonlocal done
        done += 1
        beat(Heartbeat(at=0.0, phase=Phase.SEARCHING, epoch=done, epochs=case.retrain.trials))
        tried = msgspec.structs.replace(settings, **choice)
        _, found = training.fit(dataset.usual.stopping, spec, case.model, tried, lambda _: None)
        return _loss(found)

    best = search(loss, case.retrain.trials, SEARCHED * case.retrain.budget, settings.seed)
    log.info("the search found %s", best)
    chosen = msgspec.structs.replace(settings, **best)
    return msgspec.json.decode(keeper.settle(name, msgspec.json.encode(chosen)), type=fitting.Settings)
