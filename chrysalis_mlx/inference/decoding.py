"""Token ids to text while they come: whole characters, and each space where the whole text would have it."""

from __future__ import annotations

from collections.abc import Sequence

from chrysalis_mlx.models.tokenizer import Tokenizer

_BEFORE = 8  # tokens that stand before: a word of SentencePiece begins with a space unless it begins the text
_HALF = "\ufffd"  # what a decoder shows of a character whose bytes are not all there
_LONGEST = 4  # bytes, hence tokens, of a character; what is still half after as many will stay so


class Decoder:
    """Decodes one text.

    Only the last tokens are decoded again for each new one; what their text has more than before is new. A character
    that needs more tokens is kept back until it is whole.

    Args:
        tokenizer: the model's.
        before: the tokens that the text follows; their text is not shown.
    """

    def __init__(self, tokenizer: Tokenizer, before: Sequence[int] = ()) -> None:
        self._tokenizer = tokenizer
        self._ids = list(before[-_BEFORE:])
        self._start = 0  # of the tokens that are decoded
        self._whole = len(self._ids)  # tokens whose text ended with a whole character, and is out
        self._shown = self._text()
        self._waiting = 0  # tokens since something was shown

    def add(self, token: int) -> str:
        """The characters that the next token completes; may be empty."""
        self._ids.append(token)
        self._waiting += 1
        text = self._text()
        # Some decoders show all of a row of bytes as halves while one of them is: then what was shown is not in it.
        whole, in_vain = text.rstrip(_HALF), self._waiting > _LONGEST
        if in_vain:
            whole = text
        elif len(whole) <= len(self._shown) or not whole.startswith(self._shown):
            return ""
        new = whole[len(self._shown) :]
        self._show(whole, ends=whole == text)
        return new

    def rest(self) -> str:
        """What was kept back, at the end of the text; half a character stays away."""
        text = self._text()
        new = text[len(self._shown) :].rstrip(_HALF)
        self._show(text, ends=True)
        return new

    def _show(self, text: str, ends: bool) -> None:
        self._shown, self._waiting = text, 0
        if ends:  # the tokens before these are no longer needed
            self._start, self._whole = self._whole, len(self._ids)
            self._shown = self._text()

    def _text(self) -> str:
        return self._tokenizer.decode(self._ids[self._start :])
