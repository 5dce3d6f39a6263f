"""Figures and strangers' texts, as a page writes them."""

from __future__ import annotations

import pytest

from chrysalis_mlx.evaluation.results import Interval
from chrysalis_mlx.report import words


@pytest.mark.parametrize(
    ("value", "digits", "written"),
    [
        (17.1984, 4, "17.20"),
        (0.85439, 3, "0.854"),
        (1.0248, 3, "1.02"),
        (123456.7, 4, "123,457"),
        (0.0, 4, "0"),
        (4.6354e-6, 2, "4.6e-6"),
        (0.0005, 2, "5.0e-4"),
        (2.5e7, 4, "2.50e7"),
        (-1.5, 3, "-1.50"),
        (9.9999, 3, "10.0"),
        (0.99999, 3, "1.00"),
        (999.96, 4, "1,000"),
        (float("inf"), 4, "not finite"),
        (float("nan"), 4, "not finite"),
        (None, 4, "–"),
    ],
)
def test_figures_have_so_many_digits(value: float | None, digits: int, written: str) -> None:
    assert words.figure(value, digits) == written


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (words.count(1234567), "1,234,567"),
        (words.count(float("nan")), "not finite"),
        (words.share(0.0625), "6.2 %"),
        (words.share(None), "–"),
        (words.megabytes(270_886_304), "270.9 MB"),
        (words.gibibytes(1.5 * 2**30), "1.50 GiB"),
        (words.duration(2.64), "2.6 s"),
        (words.duration(89.67), "1 min 30 s"),
        (words.duration(7260), "2 h 01 min"),
        (words.duration(None), "–"),
        (words.interval(Interval(14.112, 15.288)), "14.11 to 15.29"),
        (words.interval(None), ""),
        (words.moment("2026-11-25T22:54:39+00:00"), "2026-11-25 22:54 UTC"),
        (words.moment("yesterday"), "yesterday"),
        (words.plural(1, "file"), "1 file"),
        (words.plural(2, "loss", "losses"), "2 losses"),
        (words.listed(["one thing", "two"]), "One thing; two."),
        (words.listed([]), ""),
    ],
)
def test_units_stand_beside_figures(written: str, expected: str) -> None:
    assert written == expected


def test_what_a_browser_obeys_is_shown() -> None:
    assert words.visible("a\u202eb\x00\x1b[1m\ud800\u2028\ufeff") == "a\\u202eb\\x00\\x1b[1m\\ud800\\u2028\\ufeff"
    assert words.visible("tab\tand\nline, ä 日本 שלום <b>") == "tab\tand\nline, ä 日本 שלום <b>"


def test_a_long_text_tells_how_much_is_missing() -> None:
    assert words.shortened("w" * 10, 10) == "w" * 10
    assert words.shortened("w" * 2010, 10) == "w" * 10 + "… (2,000 more characters)"
