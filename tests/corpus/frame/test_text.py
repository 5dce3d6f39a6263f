"""Documents as text under a header."""

from __future__ import annotations

import pytest

from chrysalis_mlx.corpus.document import Document
from chrysalis_mlx.corpus.frame.text import filled


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("# {repository}/{path}\n", "# {path}/a.md\n"),
        ("{path} {path}", "a.md a.md"),
        ("{repository.__class__} {path!r} {0} {{}}", "{repository.__class__} {path!r} {0} {{}}"),
    ],
)
def test_two_fields_are_filled_in_and_nothing_else(header: str, expected: str) -> None:
    assert filled(header, Document("{path}", "a.md", "")) == expected
