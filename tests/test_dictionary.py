"""Facts about the data dictionary, and about the command that writes it."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

from stream.candidates import candidates
from stream.dictionary import dictionary
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


def test_explore_of_a_broken_gzip_ends_with_1(tmp_path: Path) -> None:
    """A file that only has the name of one."""
    events = tmp_path / "clicks.jsonl.gz"
    events.write_text("plain")
    done = eddyline("explore", events, "--out", tmp_path / "out")
    assert done.returncode == 1
    assert "an event file cannot be read" in done.stderr
