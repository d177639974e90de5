"""Facts about deploy/registry.py and deploy/store.py: a folder and an object store keep the same promises."""

from __future__ import annotations

import multiprocessing
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from deploy import transitions
from deploy.registry import Registry, RegistryError
from deploy.release import FORMAT, NOTHING, Change, Placed, Release
from deploy.store import Store, store_at
from deploy.transitions import Refused
from model import bundle
from model.bundle import Fault
from tests.drifting import bundle as make
from tests.objects import Objects, serving

WHY: transitions.Why = {"reason": "a test", "by": "tests", "created": "2024-01-01T00:00:00Z"}
KINDS = ("folder", "memory", "s3")


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Objects]:
    """An object store that S3's clients of this process find."""
    with serving() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.fixture(params=KINDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty registry of each kind."""
    if request.param == "s3":
        request.getfixturevalue("s3")
    return {"folder": str(tmp_path / "registry"), "memory": "memory://", "s3": "s3://bucket/models"}[
        request.param
    ]


@pytest.fixture
def registry(url: str, tmp_path: Path) -> Registry:
    """An empty registry of each kind, with a cache of its own."""
    return Registry(url, tmp_path / "cache")


@pytest.fixture
def store(url: str) -> Store:
    """An empty store of each kind."""
    return store_at(url)


def again(registry: Registry) -> Registry:
    """The same registry, as another process sees it."""
    made = Registry(registry.url, registry._given)
    made._store = registry._store  # a store in memory is not found by its URL
    return made


def damage(registry: Registry, path: str, data: bytes = b"{}") -> None:
    """Overwrite a file of the registry, which nothing of ours would do."""
    registry._store.put(path, data)


def placed(version: str = "v1") -> Placed:
    """A version that need not be there."""
    return Placed(version, "0" * 64)


def promotion(version: str = "v1") -> Callable[[Release], Release]:
    """A change that takes ``version`` live."""
    return lambda now: transitions.promote(now, placed(version), share=0.2, **WHY)


def renamed(now: Release) -> Release:
    """A change that is always allowed."""
    return replace(now, number=now.number + 1, reason=f"{now.number + 1}")


# --- the store's promises


def test_a_store_gives_back_what_it_was_given(store: Store) -> None:
    """A file is read as it was written last, and one that is not there is None, in a folder that is not there as well."""
    assert (None, None) == (store.get("a"), store.get("a/b/c"))
    store.put("a/b.json", b"1")
    store.put("a/b.json", b"2")
    assert (b"2", None) == (store.get("a/b.json"), store.get("a/b.json/c"))
    store.delete("a/b.json")
    store.delete("a/b.json")
    assert store.get("a/b.json") is None


def test_a_store_lists_files_at_any_depth_and_folders(store: Store) -> None:
    """Names are whole paths in order; folders are those directly inside; a folder's name is no prefix of another's."""
    assert ([], []) == (store.names("x"), store.folders("x"))
    for path in ("x/b/2", "x/b/1", "x/a/deep/3", "x/4", "xy/5"):
        store.put(path, b"")
    assert ["x/4", "x/a/deep/3", "x/b/1", "x/b/2"] == store.names("x") == store.names("x/")
    assert (["a", "b"], ["x", "xy"]) == (store.folders("x"), store.folders(""))


def test_one_of_many_creates_a_path(store: Store) -> None:
    """Of eight threads that create the same hundred paths at once, one wins each, and what it wrote stays."""
    start = threading.Barrier(8)

    def create_all(me: int) -> list[int]:
        start.wait()
        return [number for number in range(100) if store.create(f"log/{number}", b"%d" % me)]

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(create_all, range(8)))
    assert list(range(100)) == sorted(number for each in won for number in each)
    assert all(b"%d" % me == store.get(f"log/{number}") for me, each in enumerate(won) for number in each)
    assert 100 == len(store.names("log"))


def test_no_path_leads_out_of_a_registry(registry: Registry) -> None:
    """A path that goes up or begins at the root is refused."""
    for path in ("../x", "a/../../x", "/etc/passwd"):
        with pytest.raises(RegistryError, match="stays inside"):
            registry.read(path)


def test_a_url_that_nothing_can_reach_says_so() -> None:
    """An unknown kind of URL is refused with those that are known, in one line."""
    with pytest.raises(RegistryError, match=r"ftp://x/y: a registry is a folder, or an s3://.*registry.url$"):
        Registry("ftp://x/y")


def test_a_registry_that_takes_files_keeps_nothing_of_the_check(registry: Registry) -> None:
    """After the check the registry is as empty as before."""
    registry.check()
    assert [] == registry.names("")


def test_a_folder_that_takes_no_files_says_so(tmp_path: Path) -> None:
    """Where no folder can be made the check, an addition, a release and a file fail with a fix; reading finds nothing."""
    (tmp_path / "file").write_text("in the way")
    registry = Registry(str(tmp_path / "file" / "registry"))
    attempts: list[Callable[[], Any]] = [
        registry.check,
        lambda: registry.add(make(tmp_path / "v1")),
        lambda: registry.publish(promotion()),
        lambda: registry.write("jobs/1/spec.json", b""),
    ]
    for attempt in attempts:
        with pytest.raises(RegistryError, match=r"cannot be written: .*a folder that takes files"):
            attempt()
    assert (NOTHING, []) == (registry.latest(), registry.versions())


def test_an_object_store_that_refuses_says_so(s3: Objects) -> None:
    """Missing rights are an error that names the object, in one line; what is there is still read."""
    registry = Registry("s3://bucket")
    registry.publish(promotion())
    s3.refused = True
    with pytest.raises(
        RegistryError, match=r"^s3://bucket/releases/000000000002.json: cannot be written: .*403.*$"
    ):
        registry.publish(promotion("v2"))
    assert 1 == registry.latest().number


def test_a_store_that_does_not_answer_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a server a read ends with an error that says where."""
    monkeypatch.setenv("AWS_ENDPOINT", "http://127.0.0.1:9")  # the port of a service that nobody runs
    for name in ("AWS_ALLOW_HTTP", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "true")
    with pytest.raises(RegistryError, match="s3://bucket/releases: cannot be listed"):
        Registry("s3://bucket").latest()


# --- versions


def test_a_version_comes_back_as_it_was_added(registry: Registry, tmp_path: Path) -> None:
    """An added bundle is listed with its digest and manifest, and fetched whole, by another process as well."""
    source = make(tmp_path / "v1")
    read = bundle.read(source)
    assert Placed("v1", read.digest) == registry.add(source)
    [version] = again(registry).versions()
    assert ("v1", read.digest, read.manifest, None) == (
        version.version,
        version.digest,
        version.manifest,
        version.gate,
    )
    fetched = again(registry).fetch(version.placed)
    bundle.verify(bundle.read(fetched))
    assert fetched == again(registry).fetch(version.placed)


def test_the_same_bundle_is_added_once(registry: Registry, tmp_path: Path) -> None:
    """Adding a bundle again changes nothing; another bundle of its version is refused, and the first one stays."""
    first = registry.add(make(tmp_path / "a", seed=1))
    names = registry.names("")
    assert (first, names) == (again(registry).add(tmp_path / "a"), registry.names(""))
    with pytest.raises(RegistryError, match=r"written once.* choose another version"):
        registry.add(make(tmp_path / "b", seed=2))
    bundle.verify(bundle.read(registry.fetch(first)))


def test_of_racing_bundles_of_one_version_one_is_added(registry: Registry, tmp_path: Path) -> None:
    """Of three bundles added by six threads at once one is there, whole, and only those who brought it are told so."""
    sources = [make(tmp_path / f"b{seed}", seed=seed) for seed in range(3)]
    start = threading.Barrier(6)

    def add(number: int) -> Placed | None:
        start.wait()
        try:
            return again(registry).add(sources[number % 3])
        except RegistryError:
            return None

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(add, range(6)))
    [version] = registry.versions()
    won = [number % 3 for number, answer in enumerate(answers) if answer is not None]
    assert {version.placed} == {answer for answer in answers if answer}
    assert 1 == len(set(won))
    bundle.verify(bundle.read(registry.fetch(version.placed)))


def test_an_upload_that_was_cut_off_goes_on(registry: Registry, tmp_path: Path) -> None:
    """Without its manifest a version does not exist; adding the same bundle again completes it."""
    source = make(tmp_path / "v1")
    if not registry.url.startswith("/"):  # a folder gets its name when it is whole
        for name in ("features.json", "golden.npz"):
            registry.create(f"versions/v1/bundle/{name}", (source / name).read_bytes())
    assert [] == registry.versions()
    assert registry.version("v1") is None
    bundle.verify(bundle.read(registry.fetch(registry.add(source))))


def test_a_copy_that_was_cut_off_is_not_there(tmp_path: Path) -> None:
    """What a killed process left of a version or a release is listed nowhere and in no one's way."""
    registry = Registry(str(tmp_path / "registry"))
    half = tmp_path / "registry" / "versions" / "v1" / ".bundle.0a1b2c3d.writing"
    shutil.copytree(make(tmp_path / "v1"), half)
    (tmp_path / "registry" / "releases").mkdir()
    (tmp_path / "registry" / "releases" / ".000000000001.json.0a1b2c3d.writing").write_text("{")
    assert ([], NOTHING, []) == (registry.versions(), registry.latest(), registry.names(""))
    bundle.verify(bundle.read(registry.fetch(registry.add(tmp_path / "v1"))))
    assert 1 == registry.publish(promotion()).number


def test_a_folder_is_named_for_processes_that_run_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The URL of a registry in a relative folder is the whole path."""
    monkeypatch.chdir(tmp_path)
    assert (
        str(tmp_path / "registry") == Registry("registry").url == Registry(f"file://{tmp_path}/registry").url
    )


@pytest.mark.parametrize("kind", ["memory"])
def test_another_upload_that_was_cut_off_is_told_apart(kind: str, tmp_path: Path) -> None:
    """What another bundle of that version left is not mixed with this one: it is refused and says what to delete."""
    registry = Registry(f"{kind}://")
    registry.create("versions/v1/bundle/reference.npz", b"another's")
    with pytest.raises(RegistryError, match=r"reference.npz: .*another bundle.* or delete memory:/"):
        registry.add(make(tmp_path / "v1"))
    assert [] == registry.versions()


def test_what_a_job_left_can_be_deleted_and_nothing_else(registry: Registry) -> None:
    """All files of a folder, also of none; versions and releases are for good."""
    for name in ("r1/checkpoint/live.npz", "r1/checkpoint/as-of.json", "r1-1/result.json"):
        registry.write(f"jobs/{name}", b"...")
    for _ in range(2):
        registry.delete("jobs/r1/checkpoint")
    assert ["jobs/r1-1/result.json"] == registry.names("jobs")
    with pytest.raises(RegistryError, match="only what jobs leave is deleted"):
        registry.delete("releases")


def test_a_damaged_bundle_is_not_added(registry: Registry, tmp_path: Path) -> None:
    """A bundle that is not what its manifest says stays out, with the file and the fault."""
    source = make(tmp_path / "v1")
    (source / "model.tflite").write_bytes(b"something else")
    with pytest.raises(RegistryError, match=r"model\.tflite: the manifest says") as caught:
        registry.add(source)
    assert (Fault.DIGEST, []) == (caught.value.fault, registry.names(""))


def test_a_version_has_a_name_that_makes_a_folder(registry: Registry, tmp_path: Path) -> None:
    """A version whose name leads elsewhere is refused."""
    with pytest.raises(RegistryError, match=r"a version is named by .*'\.\./v1'"):
        registry.add(make(tmp_path / "v1", version="../v1"))


def test_a_version_that_changed_since_its_release_is_not_fetched(registry: Registry, tmp_path: Path) -> None:
    """A manifest of another digest, a damaged one and a missing one are refused, each by its fault."""
    released = registry.add(make(tmp_path / "v1"))
    with pytest.raises(RegistryError, match=r"released with the digest 000000000000….*put back") as caught:
        registry.fetch(Placed("v1", "0" * 64))
    assert Fault.DIGEST == caught.value.fault
    damage(registry, "versions/v1/bundle/manifest.json", b"oops")
    with pytest.raises(RegistryError, match=r"manifest\.json|released with"):
        registry.fetch(released)
    assert [] == registry.versions()
    with pytest.raises(RegistryError, match="not a manifest") as caught:
        registry.version("v1")
    assert (Fault.CORRUPT, ["v1"]) == (caught.value.fault, registry.version_names())
    with pytest.raises(RegistryError, match="v2"):
        registry.fetch(placed("v2"))


@pytest.mark.parametrize("kind", ["memory", "s3"])
def test_a_damaged_object_is_not_taken_from_a_store(kind: str, s3: Objects, tmp_path: Path) -> None:
    """A file that changed in the store is found while it is fetched, and no copy is left; put back, it is fetched."""
    assert s3.objects == {}
    registry = Registry(f"{kind}://bucket" if kind == "s3" else "memory://", tmp_path / "cache")
    released = registry.add(make(tmp_path / "v1"))
    damage(registry, "versions/v1/bundle/golden.npz")
    with pytest.raises(RegistryError, match=r"golden.npz: the manifest says") as caught:
        registry.fetch(released)
    assert (Fault.DIGEST, []) == (caught.value.fault, list((tmp_path / "cache").iterdir()))
    damage(registry, "versions/v1/bundle/golden.npz", (tmp_path / "v1" / "golden.npz").read_bytes())
    copy = registry.fetch(released)
    (copy / "golden.npz").write_bytes(b"damaged here")
    bundle.verify(bundle.read(registry.fetch(released)))


def test_a_temporary_cache_goes_with_its_registry(tmp_path: Path) -> None:
    """Without a folder for copies they lie in one of its own."""
    registry = Registry("memory://")
    fetched = registry.fetch(registry.add(make(tmp_path / "v1")))
    bundle.verify(bundle.read(fetched))
    registry.close()
    assert not fetched.exists()


# --- releases


def test_nothing_holds_before_the_first_release(registry: Registry) -> None:
    """An empty registry has no releases, and the one that holds is nothing."""
    assert (NOTHING, []) == (registry.latest(), registry.releases())


def test_the_highest_release_holds(registry: Registry) -> None:
    """Each release follows the one before, whoever publishes; those who looked before see it, and who comes new."""
    other = again(registry)
    first = registry.publish(promotion("v1"))
    assert first == other.latest()
    second = other.publish(promotion("v2"))
    assert second == registry.latest() == again(registry).latest()
    assert [first, second] == registry.releases()
    assert [1, 2] == [each.number for each in registry.releases()]


def test_a_refused_change_publishes_nothing(registry: Registry) -> None:
    """What the rules refuse passes through, and a change that changes nothing is no release."""
    held = registry.publish(promotion("v1"))
    with pytest.raises(Refused, match="v1 is live already"):
        registry.publish(promotion("v1"))
    assert held == registry.publish(lambda now: now)
    assert [held] == registry.releases()


def test_racing_publishers_each_take_a_number(registry: Registry) -> None:
    """Of eight threads that publish ten releases each, every release follows the one that its change was given."""
    start = threading.Barrier(8)

    def publish(me: int) -> list[Release]:
        mine = again(registry)
        start.wait()
        return [
            mine.publish(lambda now: replace(now, by=f"{me}", reason=f"after {now.number} by {now.by}"))
            for _ in range(10)
        ]

    with ThreadPoolExecutor(8) as pool:
        published = [release for each in pool.map(publish, range(8)) for release in each]
    log = registry.releases()
    assert log == sorted(published, key=lambda each: each.number)
    assert list(range(1, 81)) == [each.number for each in log]
    assert all(f"after {a.number} by {a.by}" == b.reason for a, b in zip([NOTHING, *log], log, strict=False))


def _publish_claims(url: str, start: Any, count: int, answers: Any) -> None:
    registry = Registry(url)
    start.wait()
    for _ in range(count):
        mine = registry.publish(lambda now: transitions.claim(now, reason="", by="trainer", created=""))
        answers.put(mine.generation)


def test_racing_processes_claim_different_generations(s3: Objects, tmp_path: Path) -> None:
    """Of four processes that claim twenty times, with equal words at the same time, no two hold one generation."""
    assert s3.objects == {}
    context = multiprocessing.get_context("spawn")
    for url in (str(tmp_path / "registry"), "s3://bucket/models"):
        start, answers = context.Barrier(4), context.Queue()
        processes = [
            context.Process(target=_publish_claims, args=(url, start, 20, answers)) for _ in range(4)
        ]
        for process in processes:
            process.start()
        claimed = [answers.get(timeout=60) for _ in range(80)]
        for process in processes:
            process.join()
        assert list(range(1, 81)) == sorted(claimed)
        assert 80 == Registry(url).latest().generation


def test_an_orphan_publishes_no_more_whatever_the_order(registry: Registry) -> None:
    """A trainer whose generation was taken over between its look and its release is refused, and nothing of it is live."""
    orphan, successor = registry, again(registry)
    generation = orphan.publish(lambda now: transitions.claim(now, **_told())).generation
    looks: list[int] = []

    def change(now: Release) -> Release:
        looks.append(now.number)
        following = transitions.promote(
            now, placed(), share=0.2, generation=generation, reason="", by="trainer", created=""
        )
        if len(looks) == 1:  # just before the orphan's is written
            successor.publish(lambda now: transitions.claim(now, **_told()))
        return following

    with pytest.raises(Refused, match="generation 2 holds"):
        orphan.publish(change)
    assert [1, 2] == looks
    assert (Change.CLAIM, None) == (registry.latest().change, registry.latest().live)


def test_a_lost_answer_is_not_another_publisher(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that wrote a release and then says that it was there already has published it once."""
    create = registry._store.create
    monkeypatch.setattr(registry._store, "create", lambda path, data: create(path, data) and False)
    published = registry.publish(promotion())
    assert [published] == registry.releases()


@pytest.mark.parametrize(
    ("data", "message", "fault"),
    [
        (b"", "not a release", Fault.CORRUPT),
        (b'{"format": 1, "number": 2, "chan', "not a release", Fault.CORRUPT),
        (b'{"format": 1}', "not a release", Fault.CORRUPT),
        (msgspec.json.encode({"format": FORMAT + 1}), "got 2; upgrade it", Fault.FORMAT),
        (msgspec.json.encode(replace(NOTHING, number=7)), "stands under its number, got 7", Fault.CORRUPT),
    ],
)
def test_a_release_that_cannot_be_understood_is_named(
    registry: Registry, data: bytes, message: str, fault: Fault
) -> None:
    """Who looks and who publishes gets an error with the file; once it is moved away, the one before holds."""
    held = registry.publish(promotion())
    damage(registry, "releases/000000000002.json", data)
    for attempt in (
        registry.latest,
        again(registry).latest,
        registry.releases,
        lambda: registry.publish(renamed),
    ):
        with pytest.raises(RegistryError, match=r"releases/000000000002\.json: .*" + message) as caught:
            attempt()
        assert fault == caught.value.fault
    registry._store.delete("releases/000000000002.json")
    assert held == registry.latest() == again(registry).latest()


def test_a_newer_program_may_add_to_a_release(registry: Registry) -> None:
    """A field that this program does not know is passed over, within a format."""
    first = registry.publish(promotion())
    later = msgspec.to_builtins(replace(first, number=2)) | {"since": "tomorrow"}
    registry.create("releases/000000000002.json", msgspec.json.encode(later))
    assert replace(first, number=2) == registry.latest()


def _told() -> dict[str, str]:
    return {"reason": "a test", "by": "tests", "created": "2024-01-01T00:00:00Z"}
