"""A Modelfile as Ollama reads it."""

from __future__ import annotations


def read(text: str) -> list[tuple[str, ...]]:
    """The commands of a Modelfile by the rules of ParseFile in Ollama's parser/parser.go."""
    commands: list[tuple[str, ...]] = []
    names: tuple[str, ...] = ()
    state, held = "between", ""
    for rune in text:
        space, line_end = rune in " \t", rune in "\r\n"
        if state == "comment":
            state = "between" if line_end else state
        elif state == "between":
            if rune == "#":
                state = "comment"
            elif not (space or line_end):
                state, held = "name", rune
        elif state in ("name", "second name"):
            letter = rune.isascii() and (rune.isalpha() or (state == "second name" and (rune.isdigit() or rune == "_")))
            assert letter or space, f"{held!r} is followed by {rune!r}"
            if letter:
                held += rune
                continue
            if state == "name":
                assert held in ("FROM", "ADAPTER", "TEMPLATE", "SYSTEM", "PARAMETER", "MESSAGE", "LICENSE"), held
                names = ()
            names, state = (*names, held), "second name" if held in ("PARAMETER", "MESSAGE") else "value"
            held = ""
        elif space or line_end:
            value = unquoted(held.strip())
            if value is None or space:
                held += rune
            else:
                commands.append((*names, value))
                state = "between"
        elif rune.isprintable():
            held += rune
    assert state == "between", f"{names} does not end"
    return commands


def unquoted(text: str) -> str | None:
    """What stands between the quotes; None: they are still open."""
    for quotes in ('"""', '"'):
        if text.startswith(quotes):
            closed = len(text) >= 2 * len(quotes) and text.endswith(quotes)
            return text[len(quotes) : -len(quotes)] if closed else None
    return text
