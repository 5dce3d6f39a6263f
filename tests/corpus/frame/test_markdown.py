"""Tables, and inline marks taken away."""

from __future__ import annotations

import time

from chrysalis_mlx.corpus.frame.markdown import Table, outline, plain, tables


def test_tables_have_a_rule_under_their_head() -> None:
    text = r"""
| Name | What it is |
| :--- | ---: |
| [a](http://x) | one \| two |
| b | |
| c |

no | table
here | too

```
| a | b |
|---|---|
| 1 | 2 |
```

a | b
--|--
1 | 2 | 3
after"""
    assert list(tables(text.split("\n"))) == [
        Table(["Name", "What it is"], [["[a](http://x)", r"one \| two"], ["b", ""], ["c", ""]]),
        Table(["a", "b"], [["1", "2"]]),
    ]


def test_plain_is_what_a_reader_sees() -> None:
    assert plain("**Bold** _it_ `code_name` snake_case") == "Bold it code_name snake_case"
    assert plain("[![badge](a.svg)](http://x) <b>Title</b> [link](http://y)") == "badge Title link"
    assert plain(r"a \| b \*c\*  d") == "a | b *c* d"


def test_hostile_lines_take_no_time() -> None:
    start = time.perf_counter()
    lines = ["# " + " " * 200_000 + "x", "|" + " " * 200_000, "[" * 200_000, "-" * 200_000, "#" * 200_000]
    assert outline(lines).headings == []
    assert list(tables(lines)) == []
    assert plain("[" * 200_000) == "[" * 200_000
    assert time.perf_counter() - start < 2
