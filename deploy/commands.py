"""Commands of the registry: ``eddyline models ...``. They import what they need when they run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from deploy.command import FOLDER, Configured, stop, user

_F = TypeVar("_F", bound=Callable[..., Any])
READS = ("registry",)
PUBLISHES = ("registry", "kafka", "topics")

as_json = click.option("--json", "as_json", is_flag=True, help="print JSON, a line each")


def told(command: _F) -> _F:
    """Add the options of every command that publishes a release."""
    command = click.option("--force", "forced", is_flag=True, help="change it although it is pinned")(command)
    return explained(command)


def explained(command: _F) -> _F:
    """Add the options of every entry of the release log."""
    command = click.option("--reason", default="by hand", show_default=True, help="why, for the log")(command)
    command = click.option("--by", help="who, for the log  [default: the user of this machine]")(command)
    return as_json(command)


@click.group()
def models() -> None:
    """Look into the registry of models, and change what is live."""


@models.command("list", cls=Configured, groups=READS)
@as_json
def list_versions(settings: Any, *, as_json: bool) -> None:
    """List the versions: how good each is, and what it is used for."""
    from deploy import models_view as view
    from deploy import overview
    from deploy.registry import RegistryError

    registry = _opened(settings)
    try:
        releases, versions, problems = registry.releases(), [], {}
        for name in registry.version_names():
            try:
                version = registry.version(name)
            except RegistryError as error:
                problems[name] = str(error)
            else:
                versions += [version] if version else []
        now = registry.latest()
    except RegistryError as error:
        stop(error)
    rows = overview.rows(versions, problems, releases)
    if as_json:
        _print(*rows)
    else:
        view.show_versions(rows, now, registry.url, view.console())


@models.command(cls=Configured, groups=READS)
@click.argument("version")
@as_json
def show(version: str, settings: Any, *, as_json: bool) -> None:
    """Show what is known of VERSION: metrics, the gate's decision, its releases."""
    from deploy import models_view as view

    found = _detail(_opened(settings), version)
    if as_json:
        _print(found)
    else:
        view.show_version(found, view.console())


@models.command(cls=Configured, groups=READS)
@click.argument("a")
@click.argument("b")
@as_json
def diff(a: str, b: str, settings: Any, *, as_json: bool) -> None:
    """Compare the versions A and B: metrics, features, windows, sizes, the gate's decisions."""
    from deploy import models_view as view
    from deploy import overview

    registry = _opened(settings)
    left, right = (_detail(registry, each) for each in (a, b))
    found = overview.difference(left, right, _features(registry, a), _features(registry, b))
    if as_json:
        _print(found)
    else:
        view.show_difference(found, view.console())


@models.command(cls=Configured, groups=READS)
@click.option("--all", "claims", is_flag=True, help="trainers that took over as well")
@as_json
def log(settings: Any, *, claims: bool, as_json: bool) -> None:
    """List the releases: when what went live, by whom and why."""
    from deploy import models_view as view
    from deploy import overview
    from deploy.registry import RegistryError

    try:
        releases = _opened(settings).releases()
    except RegistryError as error:
        stop(error)
    shown = overview.told(releases, claims=claims)
    if as_json:
        _print(*shown)
    elif shown:
        view.show_log(shown, view.console())
    else:
        click.echo("Nothing is released.")


@models.command(cls=Configured, groups=READS)
@click.argument("bundle", type=FOLDER)
def add(bundle: Path, settings: Any) -> None:
    """Copy a model BUNDLE into the registry, once it scores as it should. It does not go live."""
    from deploy.registry import RegistryError
    from model.bundle import BundleError
    from model.scorer import LiteRTScorer

    try:
        LiteRTScorer.load(bundle)
        placed = _opened(settings).add(bundle)
    except (BundleError, RegistryError) as error:
        stop(error)
    click.echo(
        f"{placed.version} is in {settings.registry.url}; `eddyline models promote {placed.version}` takes it live"
    )


@models.command(cls=Configured, groups=PUBLISHES)
@click.argument("version")
@click.option(
    "--share",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.2,
    show_default=True,
    help="of the users, whom the version before goes on scoring, to be compared and to come back",
)
@told
def promote(version: str, share: float, settings: Any, forced: bool, **told: Any) -> None:
    """Take VERSION live. What is live goes on scoring beside it."""
    from deploy import transitions

    registry = _opened(settings)
    found = _known(registry, version)
    if (before := _live_usecase(registry)) not in {"", found.manifest.usecase}:
        stop(
            f"{registry.url}: a registry is one use case's, and {version} is of {found.manifest.usecase} while what is live is "
            f"of {before}; give each its own registry.url"
        )
    placed = found.placed
    _check(registry, placed)
    _publish(
        registry,
        settings,
        lambda now, why: transitions.promote(now, placed, share=share, forced=forced, **why),
        told,
    )


@models.command(cls=Configured, groups=PUBLISHES)
@told
def rollback(settings: Any, forced: bool, **told: Any) -> None:
    """Take live again what was live before."""
    from deploy import transitions
    from deploy.registry import RegistryError
    from deploy.release import Role

    registry = _opened(settings)
    try:
        beside = registry.latest().beside
    except RegistryError as error:
        stop(error)
    expected = None
    if beside is not None and beside.role == Role.PREVIOUS:
        _check(registry, beside.model)
        expected = beside.model.version  # another than the one that was looked at is not taken live
    _publish(
        registry,
        settings,
        lambda now, why: transitions.rollback(now, beside=expected, forced=forced, **why),
        told,
    )


@models.command(cls=Configured, groups=PUBLISHES)
@explained
def pin(settings: Any, **told: Any) -> None:
    """Keep what is live: the trainer and the watch change nothing until `unpin`."""
    from deploy import transitions

    _publish(_opened(settings), settings, lambda now, why: transitions.pin(now, **why), told)


@models.command(cls=Configured, groups=PUBLISHES)
@explained
def unpin(settings: Any, **told: Any) -> None:
    """Let the trainer and the watch change what is live again."""
    from deploy import transitions

    _publish(_opened(settings), settings, lambda now, why: transitions.unpin(now, **why), told)


def _opened(settings: Any) -> Any:
    from deploy.registry import Registry, RegistryError

    try:
        return Registry.of(settings.registry)
    except RegistryError as error:
        stop(error)


def _known(registry: Any, version: str) -> Any:
    from deploy.registry import RegistryError

    try:
        found = registry.version(version)
        if found is None:
            names = ", ".join(each.version for each in registry.versions()) or "none"
            stop(f"{registry.url}: there is no version {version}; there are: {names}")
    except RegistryError as error:
        stop(error)
    return found


def _detail(registry: Any, version: str) -> Any:
    from deploy import overview
    from deploy.registry import RegistryError

    found = _known(registry, version)
    try:
        return overview.detail(found, registry.releases())
    except RegistryError as error:
        stop(error)


def _features(registry: Any, version: str) -> Any:
    import msgspec

    from deploy.registry import RegistryError
    from model.bundle import FEATURES
    from model.features import FeatureSpec

    path = f"versions/{version}/bundle/{FEATURES}"
    try:
        return msgspec.json.decode(registry.read(path) or b"", type=FeatureSpec)
    except (RegistryError, msgspec.DecodeError) as error:
        stop(f"{registry.url}/{path}: not a feature spec: {error}; add the version again under another name")


def _check(registry: Any, placed: Any) -> None:
    """Leave unless the version that is to go live can be loaded, and scores as it must."""
    from deploy.registry import RegistryError
    from model.bundle import BundleError
    from model.scorer import LiteRTScorer

    try:
        LiteRTScorer.load(registry.fetch(placed))
    except (BundleError, RegistryError) as error:
        stop(error)


def _publish(registry: Any, settings: Any, change: Callable[[Any, Any], Any], told: dict[str, Any]) -> None:
    """Publish ``change``, say what holds now, and announce it."""
    from datetime import UTC, datetime

    from deploy import models_view as view
    from deploy.announce import AnnounceError, announce
    from deploy.registry import RegistryError
    from deploy.transitions import Refused

    created = datetime.now(UTC).isoformat(timespec="seconds")
    why = {"reason": told["reason"], "by": told["by"] or user(), "created": created}
    try:
        release = registry.publish(lambda now: change(now, why))
    except Refused as error:
        stop(f"{error}{'' if 'unpin' not in str(error) else ', and --force changes it all the same'}")
    except RegistryError as error:
        stop(error)
    if told["as_json"]:
        _print(release)
    else:
        click.echo(view.standing(release))
    usecase = _usecase(registry, release)
    if not usecase:
        return
    try:
        announce(settings.kafka, settings.topics.models, usecase, release)
    except AnnounceError as error:
        click.echo(
            f"eddyline: {error}; it holds all the same, and workers follow within registry.poll_s, "
            f"{settings.registry.poll_s:g} s by these settings",
            err=True,
        )


def _live_usecase(registry: Any) -> str:
    from deploy.registry import RegistryError

    try:
        live = registry.latest().live
        found = registry.version(live.version) if live else None
    except RegistryError:
        return ""  # what is live is damaged: nothing of it is in the way of another version
    return str(found.manifest.usecase) if found else ""


def _usecase(registry: Any, release: Any) -> str:
    """The name under which ``release`` is announced: a registry is one use case's. Empty if no version can tell."""
    from deploy.registry import RegistryError

    try:
        known = {each.version: str(each.manifest.usecase) for each in registry.versions()}
    except RegistryError:
        return ""
    live = release.live.version if release.live else ""
    return known.get(live) or next(iter(known.values()), "")


def _print(*values: Any) -> None:
    import msgspec

    for value in values:
        click.echo(msgspec.json.encode(value).decode())
