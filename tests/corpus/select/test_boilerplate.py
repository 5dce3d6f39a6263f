"""Lines that many repositories have."""

import pytest

from chrysalis_mlx.corpus.document import Document
from chrysalis_mlx.corpus.select.boilerplate import BoilerplateIndex

LICENCE = "Permission is hereby granted, free of charge,\nto any person obtaining a copy of this software."
SHARED = 45 + 48


def licence(repository: str, *, backup: bool = False) -> Document:
    return Document(repository, "LICENSE", f"Copyright {repository}\n\n{LICENCE}\n", backup)


def test_lines_of_three_repositories_are_boilerplate() -> None:
    index = BoilerplateIndex([licence("a"), licence("b"), licence("c")], 3)
    assert [len(line) for line in LICENCE.split("\n")] == [45, 48]
    assert index.share(licence("a").text) == pytest.approx(SHARED / (SHARED + len("Copyright a")))
    assert index.share("  Permission is hereby granted, free of charge,  \n" + "x" * 55) == pytest.approx(0.45)
    assert index.share("Something else that no one else has.") == 0.0
    assert index.share("") == 0.0


def test_lines_of_two_repositories_are_not() -> None:
    index = BoilerplateIndex([licence("a"), licence("b"), Document("b", "COPYING", LICENCE)], 3)
    assert index.share(LICENCE) == 0.0


def test_backups_are_no_repositories_of_their_own() -> None:
    assert BoilerplateIndex([licence("a"), licence("b"), licence("c", backup=True)], 3).share(LICENCE) == 0.0


def test_equal_files_are_a_matter_of_copies() -> None:
    manifest = [Document(repository, "manifest.json", LICENCE) for repository in "abcde"]
    assert BoilerplateIndex(manifest, 3).share(LICENCE) == 0.0
    assert BoilerplateIndex([*manifest, licence("b"), licence("c")], 3).share(LICENCE) == 1.0


def test_short_lines_are_common_to_all_who_write() -> None:
    code = [Document(repository, "x.py", f"import os\nimport sys\n{repository}\n") for repository in "abc"]
    assert BoilerplateIndex(code, 3).share("import os\nimport sys") == 0.0


def test_without_documents_nothing_is_boilerplate() -> None:
    assert BoilerplateIndex([], 3).share(LICENCE) == 0.0
