"""Documents divided at the headings of their format; together the sections are the document."""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from chrysalis_mlx.corpus.document import Document
from chrysalis_mlx.corpus.frame import keys
from chrysalis_mlx.corpus.frame.section import Section
from chrysalis_mlx.corpus.frame.sections import sections

LONG = "A paragraph that is long enough to stand by itself, because it has more than two hundred characters in it." + (
    " It has another sentence, so that nobody can say that it is short, and a third one would be too much of it all."
)


def of(path: str, *parts: str) -> list[Section]:
    return sections(Document("repo", path, "\n".join(parts) + "\n"))


def heads(found: list[Section]) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    return [(section.trail, section.titles) for section in found]


def test_markdown_divides_at_headings_and_keeps_the_way_to_them() -> None:
    found = of("a.md", "before", "", "# Top", LONG, "## One ##", LONG, "### Deep", LONG, "", "Two", "---", LONG)
    assert heads(found) == [((), ("Top",)), (("Top",), ("One",)), (("Top", "One"), ("Deep",)), (("Top",), ("Two",))]
    assert found[0].body == "before\n\n# Top\n" + LONG
    assert found[1].body == LONG


def test_setext_headings_are_single_lines_after_blank_ones() -> None:
    found = of("a.md", "Top", "===", LONG, "", "Sub", "---", LONG, "", "- item", "---", "", "| a |", "---", "x")
    assert heads(found) == [((), ("Top",)), (("Top",), ("Sub",))]


def test_what_stands_in_fences_or_front_matter_is_no_heading() -> None:
    code = ["```python", "# comment", "~~~", "```", "    # indented", "#hashtag", "####### seven"]
    found = of("a.md", "---", "title: x", "# no", "---", "# Yes", LONG, *code, LONG)
    assert heads(found) == [((), ("Yes",))]
    assert "# comment\n~~~\n```\n    # indented\n#hashtag" in found[0].body


def test_an_empty_chapter_is_in_the_trails_of_its_sections_alone() -> None:
    found = of("a.md", "# Book", "## Chapter", "### One", LONG, "### Two", LONG)
    assert heads(found) == [(("Book", "Chapter"), ("One",)), (("Book", "Chapter"), ("Two",))]


def test_short_sections_join_the_next_of_their_chapter_else_the_one_before() -> None:
    found = of("a.md", "# A", "short", "## B", "short", "## C", LONG, "## D", "tiny", "# E", LONG, "# F", "end", "# G")
    assert heads(found) == [((), ("A",)), ((), ("E", "F", "G"))]
    assert found[0].body == f"short\n## B\nshort\n## C\n{LONG}\n## D\ntiny"
    assert found[1].body == f"# E\n{LONG}\n# F\nend\n# G"


def test_headings_alone_are_a_section() -> None:
    assert of("a.md", "# A", "## B", "# C") == [Section(("A",), ("B", "C"), "## B\n# C")]


def test_restructured_text_takes_levels_in_the_order_of_their_marks() -> None:
    over = [
        "=====",
        " Doc ",
        "=====",
        "",
        LONG,
        "",
        "One",
        "---",
        LONG,
        "",
        "Deep",
        "~~~~",
        LONG,
        "",
        "Two",
        "---",
        LONG,
    ]
    found = of("a.rst", *over, "", "a", "paragraph", "---------", "", "----", "", "end")
    assert heads(found) == [
        ((), ("Doc",)),
        (("Doc",), ("One",)),
        (("Doc", "One"), ("Deep",)),
        (("Doc",), ("Two",)),
    ]
    assert found[3].body.endswith("paragraph\n---------\n\n----\n\nend")


def test_python_divides_at_top_level_definitions_with_what_belongs_to_them() -> None:
    body = [f"    x{n} = 'a line of a body that is long enough to stand by itself {n}'" for n in range(5)]
    function = ["# why", "@cached", "def f():", *body]
    found = of("m.py", "import os", "", *function, "", "class C:", *body, "", "if True:", *body)
    assert heads(found) == [((), ("the function f",)), ((), ("the class C",)), ((), ())]
    assert found[0].body == "\n".join(["import os", "", *function])
    assert found[2].body.startswith("if True:")


def test_python_that_does_not_parse_is_one_section() -> None:
    assert of("m.py", "def f(:", "  print 1") == [Section((), (), "def f(:\n  print 1")]


def test_python_with_other_line_ends_loses_nothing() -> None:
    function = "def f():\n    return 1\n"
    alone = "x = 1\r" * 50 + function
    assert sections(Document("repo", "m.py", alone)) == [Section((), (), alone.strip())]
    in_string = f"x = 'a\rb'\n{function}"
    assert [section.titles for section in sections(Document("repo", "m.py", in_string))] == [()]
    for mark in ("\f", "\u2028", "\v", "\x85"):
        text = (
            f"x = '{mark}'\n{mark if mark == chr(12) else ''}y = 2\n\n" * 20 + function + "\n" + f"z = '{mark}'\n" * 40
        )
        found = sections(Document("repo", "m.py", text))
        assert [section.titles for section in found] == [(), ("the function f",)]
        assert found[1].body.startswith("def f():")
        assert "\n".join(section.body for section in found).split() == text.split()
    windows = "x = 1\r\n" * 50 + "def f():\r\n    return 1\r\n"
    assert [section.titles for section in sections(Document("repo", "m.py", windows))] == [("the function f",)]


def test_mappings_of_prose_divide_at_their_keys() -> None:
    prose = LONG
    text = (
        f'{{"name": "Chrysalis", "core": "{prose}", "deep": {{"a": "{prose * 8}", "b": ["{prose}", 1.50]}}, "n": []}}'
    )
    found = sections(Document("repo", "a.json", text))
    assert heads(found) == [((), ("name", "core")), (("deep",), ("a",)), (("deep",), ("b", "n"))]
    assert found[0].body == f"name: Chrysalis\ncore: {prose}"
    assert found[2].body == f"b:\n- {prose}\n- 1.50\nn:"
    yaml = f"name: Chrysalis\ncore: >\n  {prose}\ndeep:\n  a: '{prose * 8}'\n  b:\n  - {prose}\n  - 1.50\nn: []\n"
    assert heads(sections(Document("repo", "a.yaml", yaml))) == heads(found)


def test_what_is_no_mapping_of_prose_stays_as_it_is_written() -> None:
    for text in ('{"a": 1, "b": [1, 2, 3]}', "[1, 2]", "{broken", '{"a": ' + "[" * 5_000):
        assert sections(Document("repo", "a.json", text)) == [Section((), (), text)]
    prose = f"a: {LONG}"
    for text in (f"{prose}  # said", f"x: &anchor {LONG}\ny: *anchor", f"{prose}\n---\n{prose}", "a: {b: c", "- a"):
        assert sections(Document("repo", "a.yaml", text)) == [Section((), (), text)]


def test_deeply_nested_yaml_is_refused_and_does_not_end_the_program() -> None:
    assert keys.yaml_leaves("a: " + "[" * 50_000 + "]" * 50_000) is None
    assert keys.yaml_leaves("- " * 50_000) is None


blocks = st.sampled_from(
    ["# A", "## B", "### C", "Setext", "===", "---", "```", "text", LONG, "", "", "| a | b |", "    code", "# ", "~~~"]
)


@settings(max_examples=200, deadline=None)
@given(st.lists(blocks, max_size=25), st.sampled_from(["a.md", "a.rst", "a.txt"]))
def test_no_line_is_lost(lines: list[str], path: str) -> None:
    text = "\n".join(lines)
    found = sections(Document("repo", path, text))
    for line in filter(str.strip, lines):
        written = any(line.strip() in section.body for section in found)
        titles = {title for section in found for title in (*section.trail, *section.titles)}
        is_title = bool(titles & {line.strip(), line.strip("# ")})
        assert written or is_title or re.fullmatch(r"([`~=-])\1+" if path == "a.rst" else r"=+|-+", line), line
    bodies = "".join(section.body for section in found)
    assert bodies.count(LONG) == text.count(LONG)
    # In order, each line at most once.
    position = 0
    for section in found:
        for line in section.body.split("\n"):
            position = text.index(line, position) + len(line)
