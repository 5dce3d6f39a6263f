"""What a repository's licence files say."""

import pytest

from chrysalis_mlx.genome.files.licence import UNRECOGNISED, is_licence_file, licence_of
from tests.genome.repositories import PROJECT

BSD = (
    "Copyright (c) 2024 Someone\n\nRedistribution and use in source and binary forms, with or without\n"
    "modification, are permitted provided that the following conditions are met:\n"
)
PERMIT = (
    "Permission to use, copy, modify, and/or distribute this software for any purpose\n"
    "with or without fee is hereby granted"
)
MIT = (
    "Permission is hereby granted, free of charge, to any person ...\n"
    "The above copyright notice and this permission notice shall be included in all copies."
)
TEXTS = {
    "MIT": MIT,
    "Apache-2.0": "                 Apache License\n           Version 2.0, January 2004",
    "BSD-2-Clause": BSD,
    "BSD-3-Clause": f"{BSD} ... may not be used to endorse or promote\nproducts derived from this software",
    "ISC": f"{PERMIT}, provided that the above\ncopyright notice and this permission notice appear in all copies.",
    "0BSD": f"{PERMIT}.",
    "MPL-2.0": "Mozilla Public License Version 2.0\n====",
    "GPL-2.0": "GNU GENERAL PUBLIC LICENSE\n  Version 2, June 1991 ... GNU Lesser General Public License instead",
    "GPL-3.0": "GNU GENERAL PUBLIC LICENSE\n  Version 3, 29 June 2007 ... GNU Affero General Public License version 3",
    "LGPL-2.1": "GNU LESSER GENERAL PUBLIC LICENSE\n   Version 2.1, February 1999",
    "LGPL-3.0": "GNU LESSER GENERAL PUBLIC LICENSE\nVersion 3 ... of version 3 of the GNU General Public License",
    "AGPL-3.0": "GNU AFFERO GENERAL PUBLIC LICENSE\n  Version 3 ... GNU General Public License, version 3",
    "CC0-1.0": "Creative Commons Legal Code\n\nCC0 1.0 Universal",
    "CC-BY-4.0": "Attribution 4.0 International\n\n====",
    "CC-BY-SA-4.0": "Attribution-ShareAlike 4.0 International",
    "CC-BY-NC-4.0": "[CC BY-NC 4.0](https://creativecommons.org/licenses/by-nc/4.0/)",
    "CC-BY-NC-SA-4.0": "Creative Commons Attribution-NonCommercial-ShareAlike 4.0 International License",
    "Unlicense": "This is free and unencumbered software released into the public domain.",
    "WTFPL": "DO WHAT THE FUCK YOU WANT TO PUBLIC LICENSE\nVersion 2, December 2004",
    "EUPL-1.2": "EUROPEAN UNION PUBLIC LICENCE v. 1.2",
    "BSL-1.0": "Boost Software License - Version 1.0 - August 17th, 2003",
    "Zlib": "The origin of this software must not be misrepresented; altered source versions must be plainly marked",
}


@pytest.mark.parametrize("identifier", TEXTS)
@pytest.mark.parametrize("change", [str, str.upper, lambda text: text.replace(" ", "\r\n  ")])
def test_a_licence_is_known_by_its_text(identifier: str, change: type[str]) -> None:
    assert licence_of({"LICENSE": change(TEXTS[identifier])}) == identifier


def test_our_own_licence_is_known() -> None:
    assert licence_of({"LICENSE": (PROJECT / "LICENSE").read_text(encoding="utf-8")}) == "MIT"


def test_the_identifier_wins() -> None:
    assert licence_of({"LICENSE": f"SPDX-License-Identifier: Artistic-2.0\n{MIT}"}) == "Artistic-2.0"
    assert licence_of({"COPYING": "/* SPDX-License-Identifier: MIT OR Apache-2.0 */"}) == "MIT OR Apache-2.0"


def test_several_files_are_a_choice() -> None:
    files = {"LICENSE-MIT": MIT, "LICENSE-APACHE": TEXTS["Apache-2.0"], "README.md": TEXTS["ISC"]}
    assert licence_of(files) == "Apache-2.0 OR MIT"
    assert licence_of({"COPYING": TEXTS["GPL-3.0"], "COPYING.LESSER": TEXTS["LGPL-3.0"]}) == "LGPL-3.0"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "All rights reserved.",
        f"{BSD}3. All advertising materials mentioning features",
        f"{MIT} The Software shall be used for Good, not Evil.",
        "Business Source License 1.1 ... Change License: Apache License, Version 2.0",
        "Our terms. " * 300 + MIT,
    ],
)
def test_what_nobody_knows_is_unrecognised(text: str) -> None:
    assert licence_of({"LICENSE": text}) == UNRECOGNISED


def test_without_a_licence_file_there_is_no_licence() -> None:
    assert licence_of({}) is None
    assert licence_of({"README.md": MIT}) is None


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("LICENSE", True),
        ("licence.md", True),
        ("LICENSE-MIT", True),
        ("LICENSE_APACHE.txt", True),
        ("COPYING.LESSER", True),
        ("UNLICENSE", True),
        ("vendor/LICENSE", False),
        ("licensed.py", False),
        ("LICENSES/MIT.txt", False),
        ("README.md", False),
    ],
)
def test_a_licence_file_lies_at_the_top(path: str, expected: bool) -> None:
    assert is_licence_file(path) is expected
