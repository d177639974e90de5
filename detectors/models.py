"""The models that are watched, opened from their bundles: what a monitor is made of. The command line calls."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from detectors.monitor import Monitor
from detectors.witnesses import witnesses
from model.bundle import Bundle, BundleError, check_spec, verify
from model.bundle import read as read_bundle
from model.features import feature_spec
from model.reference import Reference
from model.reference import read as read_reference
from model.usecase import UseCase

log = logging.getLogger(__name__)


def references(usecase: UseCase, bundles: Sequence[Path]) -> dict[str, Reference]:
    """The reference of each of ``bundles``, by model version; raises :class:`model.bundle.BundleError`."""
    found: dict[str, Reference] = {}
    for path in bundles:
        bundle = read_bundle(path)
        version = bundle.manifest.version
        if version in found:
            raise BundleError(f"{path}: model {version} is given twice; give each version once")
        found[version] = opened(usecase, bundle)
    return found


def opened(usecase: UseCase, bundle: Bundle) -> Reference:
    """The reference of ``bundle``, which is whole and of the features of ``usecase``, or :class:`BundleError` says why not."""
    check_spec(bundle, feature_spec(usecase))
    verify(bundle)
    return read_reference(bundle)


def maker(usecase: UseCase, bundles: Sequence[Path]) -> Callable[[], Monitor]:
    """What makes a monitor of ``bundles``, as :func:`making` does; raises :class:`model.bundle.BundleError`."""
    known, make = references(usecase, bundles), making(usecase)
    make(known)  # so that what cannot be watched is told now
    return lambda: make(known)


def making(usecase: UseCase) -> Callable[[Mapping[str, Reference]], Monitor]:
    """What makes a monitor of references that has seen nothing; tells in the log, once, what it cannot watch."""
    asked, missing = witnesses(usecase.drift.witnesses, usecase.drift.events_between_false_alarms)
    if missing:
        log.warning(
            "alibi-detect is not installed: these witnesses of [drift] are not asked: %s. Verdicts go without them; "
            "`pip install eddyline[alibi]` adds them (its licence: README)",
            ", ".join(missing),
        )
    told: set[str] = set()  # of which it is said already

    def make(known: Mapping[str, Reference]) -> Monitor:
        monitor = Monitor(usecase, known, asked)
        for (version, name), rare in monitor.unwatched.items():
            if version not in told:
                log.warning(
                    "model %s: %d values of %s are too rare in the reference to be watched on their own: %s%s",
                    *(version, len(rare), name, ", ".join(map(repr, rare[:10]))),
                    ", …" if len(rare) > 10 else "",
                )
        told.update(known)
        return monitor

    return make
