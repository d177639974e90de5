"""Facts about the data dictionary, and about the command that writes it."""

from __future__ import annotations

import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import rich.console

from stream.candidates import candidates
from stream.dictionary import dictionary, summary
from tests import shop
from tests.shop import event, explored
from tests.test_cli import eddyline

NASTY = "<script>alert('$x_1$')</script>|`*"


class Tags(HTMLParser):
    """The tags of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002 — as HTMLParser's
        """Note the tag."""
        self.seen.append(tag)


def tags(html: str) -> list[str]:
    """Return the tags of a page in order."""
    parser = Tags()
    parser.feed(html)
    return parser.seen


def test_both_forms_say_what_was_found() -> None:
    """Counts, fields and the best pair stand in the Markdown and in the page; the page has the plots."""
    markdown, html = dictionary(*shop.shop(), ["shop.jsonl"])
    for text in (markdown, html):
        assert "12,000" in text
        assert "offer → buy" in text
        assert "shop.jsonl" in text
    assert "| view | context.plan | category | 0.0 % | 5 |" in markdown
    assert "svg" not in markdown
    assert tags(html).count("svg") == 6


def test_tables_of_the_markdown_are_whole() -> None:
    """Every row of a table has as many cells as its head."""
    markdown, _ = dictionary(*shop.shop(), ["shop.jsonl"])
    for block in re.findall(r"(?:^\|.*\n)+", markdown, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1


def test_the_page_needs_nothing_else() -> None:
    """No address is loaded, and the plots carry no date: the same events give the same page."""
    _, html = dictionary(*shop.shop(), ["shop.jsonl"])
    assert not re.search(r"(?:src|href)=[\"'](?!#)", html)
    assert "@import" not in html
    assert html == dictionary(*shop.shop(), ["shop.jsonl"])[1]


def test_names_and_values_from_the_data_are_escaped() -> None:
    """Types, fields, values, ids and reasons cannot become markup, in plots neither."""
    events = [
        event(
            n, type=NASTY if n % 2 else "购买", item=NASTY, value=n, context={NASTY: NASTY}, user=f"u{n % 9}"
        )
        for n in range(600)
    ]
    findings = explored([*events, event(1, type="view", user=NASTY * 60)])
    found = candidates(findings.histories)
    markdown, html = dictionary(findings, found, [NASTY])
    assert "script" not in tags(html)
    assert "<script" not in markdown + html
    assert "&lt;script&gt;" in html
    assert r"\|\`\*" in markdown


def test_events_of_one_type_and_no_field_have_a_dictionary() -> None:
    """The least that can be explored."""
    findings = explored([event(0)])
    markdown, html = dictionary(findings, (), ["one.jsonl"])
    assert "No pair of event types happens often enough" in markdown
    assert tags(html).count("h2") == 5


def test_explore_writes_three_files_and_keeps_a_use_case(tmp_path: Path) -> None:
    """The proposal passes `check` with the same events; a second run does not overwrite it unless told to."""
    events, out = tmp_path / "shop.jsonl", tmp_path / "out"
    events.write_text("".join(json.dumps(each) + "\n" for each in shop.stream()))
    done = eddyline("explore", events, "--out", out)
    assert (0, "") == (done.returncode, done.stderr)
    assert {"usecase.toml", "data-dictionary.md", "data-dictionary.html"} == {
        path.name for path in out.iterdir()
    }
    assert "buy, same item" in done.stdout
    checked = eddyline("check", out / "usecase.toml", events)
    assert (0, "") == (checked.returncode, checked.stderr)
    (out / "usecase.toml").write_text("mine")
    again = eddyline("explore", events, "--out", out)
    assert again.returncode == 2
    assert "usecase.toml is there already; name another folder with --out" in again.stderr
    assert (out / "usecase.toml").read_text() == "mine"
    assert eddyline("explore", events, "--out", out, "--force").returncode == 0
    assert (out / "usecase.toml").read_text() != "mine"


def test_explore_of_another_format_ends_with_1(tmp_path: Path) -> None:
    """It says what it found, and writes nothing."""
    events = tmp_path / "clicks.jsonl"
    events.write_text('{"user_id": "u", "event": "click", "timestamp": 1700000000}\n')
    done = eddyline("explore", events, "--out", tmp_path / "out")
    assert done.returncode == 1
    assert f"eddyline: {events}: no line is an event" in done.stderr
    assert not (tmp_path / "out").exists()


def test_explore_of_a_broken_gzip_ends_with_2(tmp_path: Path) -> None:
    """A file that only has the name of one."""
    events = tmp_path / "clicks.jsonl.gz"
    events.write_text("plain")
    done = eddyline("explore", events, "--out", tmp_path / "out")
    assert done.returncode == 2
    assert f"eddyline: {events}: cannot be read after line 0" in done.stderr
    assert not (tmp_path / "out").exists()


def test_explore_finds_an_unwritable_folder_first(tmp_path: Path) -> None:
    """One line and exit code 2, before the events are read."""
    events = tmp_path / "clicks.jsonl"
    events.write_text("no event")
    done = eddyline("explore", events, "--out", "/proc/q/r")
    assert (2, 1, "") == (done.returncode, done.stderr.count("\n"), done.stdout)
    assert "eddyline: /proc: no file can be written there" in done.stderr


def test_explore_says_that_a_use_case_lacks_its_decision(tmp_path: Path) -> None:
    """One type alone, or types that cannot be declared: the dictionary is written, and the exit code is 1."""
    for kinds, said in (
        (("view",), "take two event types, and all events are view"),
        (("view", "Page View"), 'and a use case cannot name "Page View"; send types in lower case'),
    ):
        events, out = tmp_path / "shop.jsonl", tmp_path / str(len(kinds))
        made = [event(n, type=kinds[n % len(kinds)]) for n in range(100)]
        events.write_text("".join(json.dumps(each) + "\n" for each in made))
        done = eddyline("explore", events, "--out", out)
        assert done.returncode == 1
        assert f"{out / 'usecase.toml'}: no valid use case: " in done.stderr
        assert said in done.stderr
        assert (out / "data-dictionary.html").is_file()
        assert eddyline("check", out / "usecase.toml").returncode == 2


def test_the_terminal_says_what_is_doubtful(tmp_path: Path) -> None:
    """A guess for want of events, named once the files are written."""
    events = tmp_path / "few.jsonl"
    events.write_text("".join(json.dumps(event(n, type=("view", "buy")[n % 2])) + "\n" for n in range(6)))
    done = eddyline("explore", events, "--out", tmp_path / "out")
    assert done.returncode == 0
    assert "the decision view is doubtful: too few events to tell; a guess" in done.stderr


def test_a_doubtful_outcome_is_shown_where_there_is_no_other() -> None:
    """The terminal's table calls it so; a better one goes before it; a type without any says none."""
    findings, found = shop.shop()
    offer = next(each for each in found if each.decision == "offer" and not each.against)
    doubted = msgspec.structs.replace(offer, against="it is rare")
    console = rich.console.Console(width=200, file=io.StringIO())
    with console.capture() as doubtful:
        console.print(summary(findings, [doubted]))
    with console.capture() as better:
        console.print(summary(findings, [offer, doubted]))
    assert "doubtful: buy, same item" in doubtful.get()
    assert doubtful.get().count("none") == 2
    assert "doubtful" not in better.get()
