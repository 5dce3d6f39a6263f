"""The hard strings are what they are said to be."""

from __future__ import annotations

import re
import unicodedata

from chrysalis_mlx.gguf.vocabulary.hard_strings import HARD_STRINGS, hard_strings, special_token_strings

KINDS = "Lu Ll Lt Lm Lo Mn Mc Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp Cc Cf Co"
SCRIPTS = (
    "LATIN GREEK CYRILLIC HEBREW ARABIC DEVANAGARI BENGALI TAMIL TELUGU THAI LAO TIBETAN MYANMAR GEORGIAN HANGUL "
    "ETHIOPIC KHMER HIRAGANA KATAKANA CJK ARMENIAN GOTHIC MATHEMATICAL FULLWIDTH HALFWIDTH"
)


def test_no_string_is_there_twice_or_cannot_be_sent() -> None:
    assert len(set(HARD_STRINGS)) == len(HARD_STRINGS) > 100
    for text in HARD_STRINGS:
        assert text.encode("utf-8").decode("utf-8") == text  # no lone surrogates
        assert "\0" not in text


def test_they_hold_every_kind_of_character() -> None:
    characters = set("".join(HARD_STRINGS))
    assert {unicodedata.category(character) for character in characters} >= set(KINDS.split())
    names = {unicodedata.name(character, "?").split()[0] for character in characters}
    assert names >= set(SCRIPTS.split())
    assert max(characters) > "\uffff"


def test_they_hold_the_cases_that_rules_differ_in() -> None:
    digits = {len(run) for run in re.findall(r"[0-9]+", " ".join(HARD_STRINGS))}
    assert digits >= set(range(1, 11))
    assert {len(text) for text in HARD_STRINGS if set(text) == {" "}} >= {1, 2, 3, 16, 33}
    parts = ["'s", "'S", "\u2019s", "'Ll", "\r\n", "\n\n\n\n", "\t\t", "\u200d", "\ufe0f", "\U0001f3fd", "\ufffd"]
    for part in parts:
        assert any(part in text for text in HARD_STRINGS), part
    assert "" in HARD_STRINGS
    assert any(re.search(r"\S{100}", text) for text in HARD_STRINGS)


def test_the_normal_form_of_a_tokenizer() -> None:
    assert hard_strings() == list(HARD_STRINGS)
    changed = [text for text in HARD_STRINGS if not unicodedata.is_normalized("NFC", text)]
    assert len(changed) == 3  # decomposed Latin, decomposed Hangul, and the long one that holds both
    composed = hard_strings("NFC")
    assert all(unicodedata.is_normalized("NFC", text) for text in composed)
    assert len(composed) == len(HARD_STRINGS)
    assert set(composed) - set(HARD_STRINGS) == {unicodedata.normalize("NFC", text) for text in changed}


def test_special_tokens_stand_everywhere_in_a_text() -> None:
    texts = special_token_strings(["<s>", "<|end|>", "<s>", ""])
    assert len(set(texts)) == len(texts)
    for token in ("<s>", "<|end|>"):
        for text in (token, f"{token}Hello world", f"Hello world{token}", f"in{token}side", token * 2, f" {token} "):
            assert text in texts
        assert f"{token[:-1]} {token[1:]}" in texts  # nearly the token
    assert "one<s>two <|end|>three" in texts
    assert "<s><|end|>" in texts
    assert special_token_strings([]) == []


def test_of_very_many_special_tokens_some_are_taken() -> None:
    tokens = [f"<unused{number}>" for number in range(1000)]
    texts = special_token_strings(tokens, limit=10)
    assert [token for token in tokens if token in texts] == tokens[::100]
