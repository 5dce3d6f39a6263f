"""General English, to see what a training has cost: how well text is still predicted that is nothing like the corpus.

Every model has read these works, and knows some of them almost by heart. So their perplexity is no measure of a model's
English, and no two models can be compared by it. The change is what counts: base and tuned are measured on the same
tokens, and a model that forgets loses what it knew well along with the rest. Other things may be forgotten and not show
here: facts, other languages, arithmetic, how to follow an instruction.
"""

from __future__ import annotations

from pathlib import Path

from chrysalis_mlx.batches.paragraphs import paragraph_segments, spread
from chrysalis_mlx.batches.tokens import Segment
from chrysalis_mlx.models.tokenizer import Tokenizer

SOURCE = (
    "Passages, some of them abridged, of: Jane Austen, Persuasion (1817); Charles Darwin, On the Origin of Species "
    "(1859); Mark Twain, Life on the Mississippi (1883); The Constitution of the United States (1787); Adam Smith, "
    "The Wealth of Nations (1776); Isabella Beeton, The Book of Household Management (1861); Oscar Wilde, The "
    "Importance of Being Earnest (1895); Michael Faraday, The Chemical History of a Candle (1861); Benjamin Franklin,"
    " Autobiography (written until 1790); Henry David Thoreau, Walden (1854); John Stuart Mill, On Liberty (1859); "
    "John Keats, To Autumn (1820); The Girl's Own Paper (2 October 1886); Florence Nightingale, Notes on Nursing "
    "(1859); United States Army, Infantry Drill Regulations (1911); Arthur Conan Doyle, The Adventures of Sherlock "
    "Holmes (1892); Jerome K. Jerome, Three Men in a Boat (1889). All of it is in the public domain: published before"
    " 1929, by authors who died in 1930 or earlier or are not named, or by the United States."
)
"""The works that the passages are from, in their order."""

_BETWEEN = "\n\n\n"  # two passages; one empty line is between two paragraphs


def general_text() -> str:
    """The built-in general text: passages of different kinds, with two empty lines between them."""
    return Path(__file__).with_name("general.txt").read_text(encoding="utf-8")


def general_segments(tokenizer: Tokenizer, tokens: int, row_length: int) -> list[Segment]:
    """The built-in general text as segments, none of more than `row_length` tokens.

    A segment is one passage, or some whole paragraphs of it, so that segments are as independent as the documents of a
    bootstrap should be. No end token follows: where a passage ends was our choice, and is nothing to be predicted.

    Args:
        tokens: about so many in all, in at least one segment, spread evenly over the text; the whole text where it has
            fewer. 0: none.
    """
    if not tokens:
        return []
    passages = general_text().rstrip().split(_BETWEEN)
    return spread(
        [segment for text in passages for segment in paragraph_segments(text, tokenizer, row_length, ended=False)],
        tokens,
    )
