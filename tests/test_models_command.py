"""Facts about `eddyline models`, each command run as a person would; about deploy/announce.py and deploy/overview.py."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result
from msgspec.structs import replace

from deploy import transitions
from deploy.announce import AnnounceError, announce
from deploy.commands import models
from deploy.overview import Spell, concerning, spells, told
from deploy.registry import Registry
from deploy.release import NOTHING, Beside, Correction, Placed, Release, Role
from deploy.settings import Kafka, Settings
from model import bundle
from model.bundle import read, write_features, write_manifest
from model.features import Category
from tests.workers import read as records

WHY: transitions.Why = {"reason": "a test", "by": "tests", "created": "2024-01-01T00:00:00Z"}
Run = Callable[..., Result]


def version_of(trained: Path, directory: Path, version: str, **manifest: Any) -> Path:
    """A bundle that scores, of another version."""
    shutil.copytree(trained, directory)
    write_manifest(directory, replace(read(directory).manifest, version=version, **manifest))
    return directory


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the registry is."""
    return tmp_path / "registry"


@pytest.fixture
def registry(folder: Path) -> Registry:
    """The registry that the commands are run on."""
    return Registry(str(folder))


@pytest.fixture
def two(registry: Registry, trained: Path, tmp_path: Path) -> list[Placed]:
    """Versions 1 and 2 in the registry."""
    created = ["2024-03-01T06:00:00+00:00", "2024-03-02T06:00:00+00:00"]
    made = [
        version_of(trained, tmp_path / f"v{n}", f"v{n}", created=moment)
        for n, moment in enumerate(created, 1)
    ]
    return [registry.add(each) for each in made]


@pytest.fixture
def run(folder: Path) -> Run:
    """Run `eddyline models`, with no Kafka to announce on."""

    def run(*arguments: str) -> Result:
        command, *rest = arguments
        flags = ["--registry-url", str(folder)]
        if command in {"promote", "rollback", "pin", "unpin"}:
            flags += ["--kafka-bootstrap-servers", "127.0.0.1:9", "--kafka-delivery-timeout-s", "0.05"]
        return CliRunner().invoke(models, [command, *flags, *rest], catch_exceptions=False)

    return run


def gate(*, passed: bool) -> bytes:
    """A decision, as retrain's gate writes it."""
    return msgspec.json.encode(
        {
            "passed": passed,
            "reasons": ["log-loss is lower by 0.0200", "no slice is worse"],
            "champion": "v1",
            "challenger": "v2",
            "margin": 0.005,
            "begin": "2024-02-01T00:00:00Z",
            "end": "2024-03-01T00:00:00Z",
            "compared": [
                {
                    "slice": name,
                    "value": value,
                    "rows": 4321,
                    "champion_log_loss": 0.5,
                    "challenger_log_loss": 0.48,
                    "champion_auc": None,
                    "challenger_auc": 0.81,
                    "difference": -0.02,
                    "low": -0.03,
                    "high": -0.01,
                }
                for name, value in (("", ""), ("plan", "plus"))
            ],
            "added later": True,
        }
    )


def lines(result: Result) -> list[Any]:
    """What was printed as JSON."""
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_an_empty_registry_says_what_to_do(run: Run) -> None:
    """Without versions and releases, the list says so and names the command that brings one in."""
    done = run("list")
    assert 0 == done.exit_code
    assert "Nothing is released: scores are the declared priors." in done.stdout
    assert "eddyline models add BUNDLE" in done.stdout
    assert (0, "Nothing is released.\n") == (run("log").exit_code, run("log").stdout)


def test_a_version_goes_from_a_bundle_to_the_log(run: Run, trained: Path, tmp_path: Path) -> None:
    """Add, promote, promote another, roll back: each says what holds now, and the log has who and why."""
    for name in ("v1", "v2"):
        added = run("add", str(version_of(trained, tmp_path / name, name)))
        assert (0, f"{name} is in ") == (added.exit_code, added.stdout[: len(name) + 7])
    first = run("promote", "v1", "--by", "ann", "--reason", "the first one")
    assert 0 == first.exit_code
    assert "by ann: v1 is live." in first.stdout
    second = run("promote", "v2", "--by", "bob", "--reason", "newer", "--share", "0.3")
    assert "v2 is live; v1 was live before and scores 30% of the users beside it." in second.stdout
    back = run("rollback", "--by", "ann", "--reason", "calls from customers")
    assert (0, True) == (back.exit_code, "by ann: v1 is live." in back.stdout)
    log = run("log")
    rows = [line.split() for line in log.stdout.splitlines()[1:]]
    assert [["1", "promote", "v1"], ["2", "promote", "v2"], ["3", "rollback", "v1"]] == [
        [row[0], row[3], row[4]] for row in rows
    ]
    assert "calls from customers" in log.stdout


def test_the_list_tells_how_good_a_version_is_and_what_for(
    run: Run, registry: Registry, two: list[Placed]
) -> None:
    """Figures of the manifest, the gate's decision, role, correction, and when it was live."""
    registry.write("versions/v2/gate.json", gate(passed=True))
    registry.publish(lambda now: transitions.promote(now, two[0], share=0.2, **WHY))
    registry.publish(lambda now: transitions.claim(now, reason="start", by="trainer", created=""))
    registry.publish(lambda now: transitions.promote(now, two[1], share=0.25, **WHY))
    correction = Correction(0.3, 0.2, 0.18, 0.22, "drift-1")
    registry.publish(lambda now: transitions.correct(now, correction, model="v2", **WHY))
    metrics = registry.versions()[0].manifest.metrics
    done = run("list")
    assert "its scores are corrected, from 30.0% positive to 20.0% (18.0% to 22.0%)" in " ".join(
        done.stdout.split()
    )
    table = [line.split() for line in done.stdout.splitlines()]
    figures = [f"{metrics['auc']:.4f}", f"{metrics['log_loss']:.4f}"]
    assert ["v1", "2024-03-01", "06:00", *figures, "-", "previous", "25%", "1-2"] in table
    assert ["v2", "2024-03-02", "06:00", *figures, "passed", "live,", "corrected", "3-"] in table
    one, other = lines(run("list", "--json"))
    assert ("v1", "previous", 0.25, None, [{"first": 1, "last": 2}], metrics["auc"]) == tuple(
        one[name] for name in ("version", "role", "share", "gate", "live", "auc")
    )
    assert ("live", None, True, msgspec.to_builtins(correction)) == tuple(
        other[name] for name in ("role", "share", "gate", "correction")
    )


def test_a_damaged_version_is_listed_with_its_reason(run: Run, folder: Path, two: list[Placed]) -> None:
    """A version whose manifest cannot be read stands in the list as unusable; the others do as before."""
    (folder / "versions" / two[0].version / "bundle" / "manifest.json").write_text("oops")
    done = run("list")
    assert 0 == done.exit_code
    assert ["v1", "unusable"] in [line.split() for line in done.stdout.splitlines()]
    assert "manifest.json: not a manifest" in " ".join(done.stdout.split())
    assert ["v2", "v1"] == [each["version"] for each in lines(run("list", "--json"))]


def test_show_tells_all_of_a_version(run: Run, registry: Registry, two: list[Placed]) -> None:
    """Metrics with intervals, the gate's decision with its numbers, and the releases that concern the version."""
    registry.write("versions/v2/gate.json", gate(passed=False))
    registry.publish(lambda now: transitions.promote(now, two[0], share=0.2, **WHY))
    registry.publish(
        lambda now: transitions.shadow(
            now, two[1], share=0.1, reason="a try", by="trainer", created="2024-03-03T00:00:00Z"
        )
    )
    done = run("show", "v2")
    shown = " ".join(done.stdout.split())
    assert "v2 of synthetic, created 2024-03-02 06:00 UTC; shadow 10%" in shown
    assert "The gate refused it against v1, decisions of 2024-02-01 00:00 to 2024-03-01 00:00:" in shown
    assert "plan = plus 4,321 0.5000 0.4800 -0.0200 -0.0300 to -0.0100 - → 0.8100" in shown
    assert "2 2024-03-03 00:00 shadow v1 v2, shadow 10% trainer a try" in shown
    [told] = lines(run("show", "v2", "--json"))
    manifest = registry.versions()[1].manifest
    assert (manifest.metrics, False, [2]) == (
        told["metrics"],
        told["gate"]["passed"],
        [each["number"] for each in told["releases"]],
    )
    assert sum(file.size for file in manifest.files.values()) == told["size"]


def test_diff_tells_what_differs(run: Run, registry: Registry, two: list[Placed], tmp_path: Path) -> None:
    """Features that came, went and changed, metrics side by side, times; nothing where nothing differs."""
    assert "v1" == two[0].version
    source = Path(shutil.copytree(tmp_path / "v2", tmp_path / "v3"))
    spec = read(source).spec
    changed = (Category("item", 128), Category("colour", 8))
    write_features(source, replace(spec, categorical=changed))
    manifest = read(source).manifest
    write_manifest(
        source,
        replace(manifest, version="v3", metrics=manifest.metrics | {"auc": manifest.metrics["auc"] + 0.01}),
    )
    registry.add(source)
    shown = " ".join(run("diff", "v1", "v3").stdout.split())
    assert "+0.0100" in shown
    assert "feature item was category, 64 buckets (category, 128 buckets)" in shown
    assert "feature plan is gone" in shown
    assert "feature colour is new (category, 8 buckets)" in shown
    assert "created 2024-03-01 06:00 2024-03-02 06:00" in shown
    [told] = lines(run("diff", "v1", "v3", "--json"))
    assert {"item", "plan", "colour"} == told["features"].keys()
    [same] = lines(run("diff", "v1", "v2", "--json"))
    assert ({"created"}, {}) == (same["about"].keys(), same["features"])
    assert "The features are the same." in run("diff", "v1", "v2").stdout


def test_a_pin_holds_until_it_is_taken_off(run: Run, two: list[Placed]) -> None:
    """Pinned, a promotion ends with 2 and says both ways out; --force and unpin are those."""
    assert ["v1", "v2"] == [each.version for each in two]
    run("promote", "v1")
    assert "it is pinned: only people change it" in run("pin", "--reason", "exams").stdout
    refused = run("promote", "v2")
    assert 2 == refused.exit_code
    assert "v1 is pinned" in refused.stderr
    assert "`eddyline models unpin` ends that, and --force changes it all the same" in refused.stderr
    forced = run("promote", "v2", "--force")
    assert (0, True) == (forced.exit_code, "v2 is live" in forced.stdout and "pinned" in forced.stdout)
    assert "pinned" not in run("unpin").stdout
    assert (2, True) == (run("unpin").exit_code, "v2 is not pinned" in run("unpin").stderr)
    assert 0 == run("rollback").exit_code


def test_what_cannot_go_live_ends_with_2_and_a_reason(
    run: Run, registry: Registry, folder: Path, two: list[Placed]
) -> None:
    """A version that is not there, damaged, live already or without a predecessor: a fix each, and no release."""
    assert ["v1", "v2"] == [each.version for each in two]
    unknown = run("promote", "v7")
    assert (2, True) == (unknown.exit_code, "there is no version v7; there are: v1, v2" in unknown.stderr)
    assert (2, True) == (run("show", "../v1").exit_code, "a version is named" in run("show", "../v1").stderr)
    (folder / "versions" / "v2" / "bundle" / "model.tflite").write_bytes(b"something else")
    damaged = run("promote", "v2")
    assert (2, True) == (damaged.exit_code, "model.tflite: the manifest says" in damaged.stderr)
    nothing = run("rollback")
    assert (2, True) == (nothing.exit_code, "nothing is live and nothing scores beside it" in nothing.stderr)
    assert NOTHING == registry.latest()
    run("promote", "v1")
    assert (2, True) == (run("promote", "v1").exit_code, "v1 is live already" in run("promote", "v1").stderr)
    assert 1 == registry.latest().number


def test_a_version_that_scores_otherwise_is_not_taken_live(
    run: Run, trained: Path, tmp_path: Path, registry: Registry
) -> None:
    """A bundle whose golden rows get other scores is neither added nor promoted, though its digests are right."""
    wrong = version_of(trained, tmp_path / "wrong", "wrong")
    golden = bundle.read_golden(read(wrong))
    bundle.write_golden(wrong, replace(golden, score=1 - golden.score))
    write_manifest(wrong, read(wrong).manifest)
    added = run("add", str(wrong))
    assert (2, True) == (added.exit_code, "golden rows score within" in added.stderr)
    registry.add(wrong)
    promoted = run("promote", "wrong")
    assert (2, True) == (promoted.exit_code, "golden rows score within" in promoted.stderr)
    assert NOTHING == registry.latest()


def test_a_rollback_to_a_damaged_version_is_refused(run: Run, folder: Path, two: list[Placed]) -> None:
    """What was live before is checked before it goes live again, too."""
    for each in two:
        run("promote", each.version)
    (folder / "versions" / "v1" / "bundle" / "golden.npz").unlink()
    done = run("rollback")
    assert (2, True) == (done.exit_code, "golden.npz" in done.stderr)


def test_what_is_live_and_damaged_can_be_rolled_back(run: Run, folder: Path, two: list[Placed]) -> None:
    """A live version that was lost is in no one's way."""
    for each in two:
        run("promote", each.version)
    shutil.rmtree(folder / "versions" / "v2")
    done = run("rollback")
    assert (0, True) == (done.exit_code, "v1 is live" in done.stdout)


def test_a_registry_is_of_one_use_case(run: Run, two: list[Placed], trained: Path, tmp_path: Path) -> None:
    """A version of another use case than what is live is not taken live."""
    run("promote", two[0].version)
    run("add", str(version_of(trained, tmp_path / "other", "other", usecase="another")))
    done = run("promote", "other")
    assert (2, True) == (
        done.exit_code,
        "other is of another while what is live is of synthetic" in done.stderr,
    )


def test_a_release_that_cannot_be_understood_is_named(run: Run, folder: Path, two: list[Placed]) -> None:
    """A damaged release ends each command with 2 and its file."""
    run("promote", two[0].version)
    (folder / "releases" / "000000000002.json").write_text("{")
    for command in (["list"], ["log"], ["promote", "v2"], ["rollback"], ["pin"], ["show", "v1"]):
        done = run(*command)
        assert (2, True) == (done.exit_code, "000000000002.json: not a release" in done.stderr), command


def test_the_log_shows_claims_on_demand(run: Run, registry: Registry, two: list[Placed]) -> None:
    """A trainer that took over is no news for a person, and can be seen."""
    registry.publish(lambda now: transitions.claim(now, reason="start", by="trainer", created=""))
    registry.publish(lambda now: transitions.promote(now, two[0], share=0.2, **WHY))
    assert ["promote"] == [each["change"] for each in lines(run("log", "--json"))]
    assert ["claim", "promote"] == [each["change"] for each in lines(run("log", "--all", "--json"))]
    assert "claim" in run("log", "--all").stdout


def test_what_comes_from_outside_gives_a_terminal_no_orders(
    run: Run, registry: Registry, two: list[Placed]
) -> None:
    """Escape sequences and markup in a reason are shown, not obeyed."""
    why: transitions.Why = {"reason": "\x1b[2J[red]gone", "by": "tests", "created": ""}
    registry.publish(lambda now: transitions.promote(now, two[0], share=0.2, **why))
    assert ("\x1b" not in run("log").stdout, "[2J[red]gone" in run("log").stdout) == (True, True)


def test_a_release_is_announced(settings: Settings, folder: Path, two: list[Placed]) -> None:
    """The newest release stands on the models topic as JSON, under its use case's name, also as JSON on stdout."""
    flags = [
        *("--registry-url", str(folder), "--json"),
        *(
            "--kafka-bootstrap-servers",
            settings.kafka.bootstrap_servers,
            "--topics-models",
            settings.topics.models,
        ),
    ]
    done = CliRunner().invoke(models, ["promote", *flags, two[0].version], catch_exceptions=False)
    assert (0, "") == (done.exit_code, done.stderr)
    [record] = records(settings, settings.topics.models)
    assert (b"synthetic", json.loads(done.stdout)) == (record.key(), json.loads(record.value() or b""))
    assert Registry(str(folder)).latest() == msgspec.json.decode(record.value() or b"", type=Release)


def test_without_kafka_a_release_holds_all_the_same(run: Run, registry: Registry, two: list[Placed]) -> None:
    """Where no broker answers the command ends with 0 and says when workers follow."""
    done = run("promote", two[0].version)
    assert 0 == done.exit_code
    assert "127.0.0.1:9" in done.stderr
    assert "workers follow within registry.poll_s, 5 s by these settings" in done.stderr
    assert 1 == registry.latest().number


def test_a_topic_that_is_not_there_is_an_error(settings: Settings) -> None:
    """Announcing on a topic that was never created ends with an error that names it."""
    kafka: Kafka = msgspec.structs.replace(settings.kafka, delivery_timeout_s=1.0)
    with pytest.raises(AnnounceError, match="not announced on nowhere of "):
        announce(kafka, "nowhere", "synthetic", replace(NOTHING, number=1))


A, B = Placed("a", ""), Placed("b", "")
LOG = [
    replace(NOTHING, number=number, live=live, beside=beside)
    for number, (live, beside) in enumerate(
        [
            (A, None),
            (A, None),
            (A, Beside(B, Role.SHADOW, 0.2)),
            (B, Beside(A, Role.PREVIOUS, 0.2)),
            (A, None),
            (replace(A, correction=Correction(0.3, 0.2, 0.1, 0.3, "d")), None),
        ],
        1,
    )
]


@pytest.mark.parametrize(
    ("version", "live", "concerned"),
    [
        ("a", (Spell(1, 3), Spell(5, None)), [1, 4, 5, 6]),
        ("b", (Spell(4, 4),), [3, 4, 5]),
        ("c", (), []),
    ],
)
def test_when_a_version_was_live(version: str, live: tuple[Spell, ...], concerned: list[int]) -> None:
    """Spells begin and end with the releases that change what is live; others that change what a version does concern it."""
    assert live == spells(version, LOG)
    assert concerned == [each.number for each in concerning(version, LOG)]
    assert [] == told(LOG, claims=False)
