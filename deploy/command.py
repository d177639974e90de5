"""What every command of ``eddyline`` shares: settings from flags, exit codes, types of paths and moments.

Each folder's commands are in its ``commands`` module; ``eddyline.py`` gathers them.
"""

from __future__ import annotations

import getpass
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import click

EXISTING = click.Path(exists=True, dir_okay=False, path_type=Path)
FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
NEW = click.Path(dir_okay=False, writable=True, path_type=Path)
MOMENT = click.DateTime(
    ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S%z"]
)  # UTC, where it names no zone


def stop(message: object, code: int = 2) -> NoReturn:
    """Say why on stderr and leave: 2 for what the caller can correct, 1 for what failed while running."""
    click.echo(f"eddyline: {message}", err=True)
    raise SystemExit(code)


def user() -> str:
    """Who runs the command, for logs that say who; leaves where the machine does not know."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container without a user of that number
        stop(
            "the log says who asks for it, and this machine knows no user; give a name in the variable LOGNAME"
        )


class Configured(click.Command):
    """A command with ``--config`` and a flag for every setting of its ``groups``; it receives ``settings``.

    The flags are made when the command is used, so that the others, and ``--help``, do not wait for them.
    """

    def __init__(self, *args: Any, groups: tuple[str, ...], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._groups = groups
        self._flags: dict[str, tuple[str, str]] = {}

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The command's own parameters, and those of its settings."""
        if not self._flags:
            from deploy import settings

            self.params.append(click.Option(["--config"], type=EXISTING, help="settings file (TOML)"))
            for group, name, description, default in settings.fields():
                if group in self._groups:
                    flag = f"--{group}-{name}".replace("_", "-")
                    text = description + (f"  [default: {default}]" if default != "" else "")
                    self.params.append(click.Option([flag, f"{group}_{name}"], metavar="VALUE", help=text))
                    self._flags[f"{group}_{name}"] = (group, name)
        return super().get_params(ctx)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command with the settings that hold."""
        from deploy import settings

        given = {at: ctx.params.pop(flag) for flag, at in self._flags.items()}
        flags = {at: value for at, value in given.items() if value is not None}
        try:
            ctx.params["settings"] = settings.load(ctx.params.pop("config"), flags=flags)
        except settings.SettingsError as error:
            stop(error)
        return super().invoke(ctx)


def declared_at(path: Path) -> Any:
    """The use case at ``path``; leaves with what is wrong with it."""
    from model import usecase

    try:
        return usecase.load(path)
    except usecase.UseCaseError as error:
        stop(error)


def scorer_of(bundle: Path, usecase: Any) -> Any:
    """What scores with ``bundle``, checked against ``usecase``; leaves with what is wrong with it."""
    from model.bundle import BundleError, check_spec
    from model.features import feature_spec
    from model.scorer import LiteRTScorer

    try:
        scorer = LiteRTScorer.load(bundle)
        check_spec(scorer.bundle, feature_spec(usecase))
    except BundleError as error:
        stop(error)
    return scorer


def milliseconds(moment: datetime) -> int:
    """``moment`` in ms since the epoch; UTC where it names no zone."""
    return int(moment.replace(tzinfo=moment.tzinfo or UTC).timestamp() * 1000)


def check_takes_files(folder: Path) -> None:
    """Stop unless a file can be made in ``folder``; none is left there."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        stop(f"{folder}: no file can be written there: {error.strerror}; name a folder that takes files")


def check_writable(folder: Path) -> None:
    """Stop unless ``folder`` takes files or can be made in one that does."""
    check_takes_files(next(each for each in (folder, *folder.parents) if each.exists()))
