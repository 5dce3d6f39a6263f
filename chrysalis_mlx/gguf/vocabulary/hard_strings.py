"""Strings on which tokenizers that are nearly the same differ: spaces, digits, marks, scripts, special tokens."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

_SPACES = (
    "",
    " ",
    "  ",
    "   ",
    " " * 7,
    " " * 16,
    " " * 33,
    "a",
    " a",
    "a ",
    "  a",
    "a  ",
    "  leading and trailing   ",
    "a b  c   d    e     f      g       h",
    "word" + " " * 20 + "word",
    "\t",
    "\t\t\t",
    " \t \t",
    "tab\tseparated\tvalues",
    "\n",
    "\n\n",
    "\n\n\n\n",
    "\r\n",
    "\r\n\r\n",
    "\n \n",
    " \n",
    "\n ",
    " \n  \n   \n",
    "a\nb\n\nc\n\n\nd",
    "a\r\nb\r\n\r\nc\r",
    "a \n b \r\n c \t d",
    "end of line  \n  start of line",
    "text\n\n\n   ",
    "mixed \t\r\n\t \n\r ends",
    "\u00a0non\u00a0breaking\u2003em\u2009thin\u3000ideographic",
    "zero\u200bwidth\u200cjoiners\u200dand\u2060word\ufeffbom",
    "next\u0085line\u2028separator\u2029paragraph",
    "form\x0cfeed and\x0bvertical tab",
)
_NUMBERS = (
    "0",
    "1 12 123 1234 12345 123456 1234567 12345678 123456789 1234567890",
    "3.14159 -2.5 +1 1e-5 6.02E23 0x1F 0b1010 1_000_000",
    "10,000 10.000,00 1'000 50% $9.99 €5 £3 ¥7",
    "2024-05-17T08:09:10.123Z 12:30 v2.0.1 192.168.0.1",
    "x1y22z333 4abc abc5 a1b2",
    "½ ¼ ² ³ ① ⑩ Ⅳ ⅷ",
    "٠١٢٣٤٥٦٧٨٩ ०१२३४५६७८९ ๐๑๒๓๔๕๖๗๘๙ ０１２３４",
    "一二三四五六七八九十 零 〇",
    "9" * 40,
)
_WORDS = (
    "Hello, world!",
    "it's they're I'm we'll you've he'd can't",
    "IT'S THEY'RE I'M WE'LL YOU'VE HE'D CAN'T I'Ll We'Ve",
    "it’s they’re I’m we’ll you’ve he’d can’t",
    "'tis 'twas rock'n'roll o'clock '90s 's 't 're ''' 'quoted' \"quoted\"",
    "CamelCaseAndSNAKE_CASE and-kebab-case HTTPServer iPhone McDonald",
    "ALL CAPS lower Title mIxEd",
    "...!!!???---===___***###@@@&&&",
    "a.b,c;d:e!f?g(h)i[j]k{l}m<n>o/p\\q|r~s`t^u",
    "wait... what?! no—really – yes… «ok» „gut“ “fine” ‘so’",
    "a" * 100,
    "pneumonoultramicroscopicsilicovolcanoconiosis" * 3,
    "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft",
    "https://example.org/path/to/page.html?query=1&other=%20space#fragment",
    "user.name+tag@mail.example.com /usr/local/bin C:\\Users\\x\\file.txt ~/.config",
    "The quick brown fox jumps over the lazy dog. The quick brown fox jumps over the lazy dog.",
)
_CODE = (
    "def f(x: int = 3) -> str:\n    if x > 0:\n        return f'{x!r}'  # noqa\n\n\nclass A:\n\tpass\n",
    "for (int i = 0; i < n; ++i) {\n\t\tsum += a[i] * b[i];\n\t}\n",
    'fn main() {\n    println!("{:?}", vec![1, 2, 3]);\n}\r\n',
    "SELECT * FROM t WHERE a >= 1 AND b != 'x';",
    '<html><p class="x">&nbsp;</p><br/></html>\n<!-- comment -->',
    '{"key": [1, 2.5, null, true], "nested": {"a": "b\\n"}}',
    "# Title\n\n- item\n  - nested\n\n```python\nprint('hi')\n```\n\n| a | b |\n|---|---|\n",
    "\\begin{equation} \\frac{\\partial f}{\\partial x} = \\sum_{i=0}^{n} x_i^2 \\end{equation}",
    "a<-b; a->b; a=>b; a==b; a!=b; a&&b; a||b; a<<b; a>>b; a::b; a??b; @a; $a",
)
_SCRIPTS = (
    "Größe naïve café Ñandú œuvre Łódź İstanbul ŞİŞLİ ß ẞ",
    "ÉCOLE ÀÉÎÕÜ ÉcoleÉcole éÉéÉ",
    "ﬁ ﬂ ǅ ŉ ª º ™ © ®",
    "Cafe\u0301 e\u0302\u0323 n\u0303 A\u030a o\u0308 (decomposed)",
    "Привет, мир! Ёлка ПРИВЕТ ПриветМир Їжак",
    "Γειά σου Κόσμε ΑΘΗΝΑ ἀρχή",
    "东京是日本的首都吗？你好，世界！《红楼梦》",
    "東京は日本の首都です。カタカナ ひらがな ｶﾀｶﾅ ーー々",
    "안녕하세요 세계 \u1112\u1161\u11ab\u1100\u1173\u11af ㅋㅋㅋ",
    "สวัสดีชาวโลก ภาษาไทยไม่มีช่องว่าง",
    "مرحبا بالعالم اَلسَّلَامُ عَلَيْكُمْ پارسی",
    "שלום עולם שָׁלוֹם",
    "नमस्ते दुनिया क्षत्रिय हिन्दी বাংলা தமிழ் తెలుగు",
    "ភាសាខ្មែរ မြန်မာ ລາວ བོད་ཡིག አማርኛ ქართული հայերեն",
    "Tiếng Việt rất đẹp, Ở đây có phở",
    "mixed 漢字and latin 한국어mixedكلمةдальше1一2",
    "𝐛𝐨𝐥𝐝 𝒞𝓊𝓇𝓈𝒾𝓋ℯ 𐍈 𠜎𠜱 🄰",
)
_SYMBOLS = (
    "🙂",
    "🦋🐛🌱",
    "hi🙂there 🙂 🙂🙂",
    "👩‍👩‍👧‍👦 👨‍💻 🏳️‍🌈 ❤️ ☺",
    "👍🏻👍🏼👍🏽👍🏾👍🏿 🤷🏽‍♀️",
    "🇩🇪🇯🇵🇧🇷 🏴󠁧󠁢󠁥󠁮󠁧󠁿 #️⃣ 1️⃣",
    "∀x∈ℝ: x² ≥ 0 ∧ ∑∏∫√∞ ≠ ≈ → ⇒ ←",
    "─│┌┐└┘├┤ █▓▒░ ★☆ ♠♥♦♣ ✓✗",
    "replacement \ufffd character \ufffd\ufffd",
    "\x01\x02\x07\x08\x1b[31mred\x1b[0m\x7f",
    "soft\u00adhyphen \u202eright to left\u202c \ue000 private",
    "▁ ▁▁ a▁b Ġ Ċ ĠHello <0x0A> <0x41>",
    "<|im_sta <|im_start |> |im_end|> <s <unk</s",
)

HARD_STRINGS: tuple[str, ...] = (
    *_SPACES, *_NUMBERS, *_WORDS, *_CODE, *_SCRIPTS, *_SYMBOLS, "\n".join((*_WORDS, *_CODE, *_SCRIPTS, *_SYMBOLS))
)  # fmt: skip
"""No NUL, which ends a string in C, and no lone surrogates, which no UTF-8 has. Some are not in Unicode's NFC."""


def hard_strings(normalize: Literal["NFC"] | None = None) -> list[str]:
    """HARD_STRINGS in the normal form of a tokenizer.

    Args:
        normalize: "NFC" for a tokenizer that brings texts into it first, such as Qwen's. llama.cpp does not, and so
            has other ids for a text that is not in NFC whatever a GGUF says; what can be compared, and what nearly all
            texts are, is text in NFC. None: as they are.
    """
    made = [unicodedata.normalize(normalize, text) if normalize else text for text in HARD_STRINGS]
    return list(dict.fromkeys(made))


def special_token_strings(tokens: Sequence[str], limit: int = 24) -> list[str]:
    """Texts with a vocabulary's own special tokens in them: at both ends, in words, doubled, with spaces around.

    Args:
        tokens: the tokens, such as <|im_end|>.
        limit: of how many tokens; some vocabularies have hundreds of a kind, so they are taken evenly spread.
    """
    names = [token for token in dict.fromkeys(tokens) if token]
    names = [names[index * len(names) // limit] for index in range(limit)] if len(names) > limit else names
    texts = [
        text
        for token in names
        for text in (
            token,
            f"{token}Hello world",
            f"Hello world{token}",
            f"in{token}side",
            f"{token}{token}",
            f"a{token}{token}b",
            f" {token} ",
            f"Hello {token} world",
            f"Hello  {token}  world",
            f"line\n{token}\nline",
            f"\t{token}\r\n\r\n{token}42's",
            f"{token[:-1]} {token[1:]}",
        )
    ]
    texts += [f"one{first}two {second}three" for first, second in pairwise(names)]
    texts += ["".join(names), " ".join(names), "\n".join(names)] if names else []
    return list(dict.fromkeys(texts))
