"""The rules of wording and structure that `make check` enforces."""

import pytest

from checks.style import find_all

CLEAR = '"""A module."""\n\n\ndef load() -> None:\n    """Load the file."""\n'


def rules(**modules: str) -> list[str]:
    """Return the findings in modules of the server, which are given by name."""
    return [found.rule for found in find_all({f"server/forkjoin/{name}.py": text for name, text in modules.items()})]


def test_clear_code_has_no_findings() -> None:
    assert rules(a=CLEAR) == []


@pytest.mark.parametrize(
    ("summary", "rule"),
    [
        ("Load " + 80 * "x" + ".", "the first line has 86 characters"),
        ("Load the file; its text.", "the first line has a semicolon"),
        ("Load the file beside it.", "unclear wording: beside"),
        ("Load the file that is\n    to be read.", "unclear wording: is to be"),
        ("Return what was read.", "unclear wording: what was"),
    ],
)
def test_an_unclear_docstring_is_found(summary: str, rule: str) -> None:
    assert rules(a=CLEAR.replace("Load the file.", summary)) == [rule]


@pytest.mark.parametrize("line", ["# whoever reads", 'raise OSError("whoever reads")', 'raise OSError(f"whoever {1}")'])
def test_an_unclear_word_in_a_comment_or_a_string_is_found(line: str) -> None:
    assert rules(a=CLEAR + f"    {line}\n") == ["unclear wording: whoever"]


def test_a_question_may_begin_with_what_is() -> None:
    assert rules(a=CLEAR.replace("Load the file.", "Ask: what is the branch?")) == []


def test_the_line_of_a_word_within_a_docstring_is_told() -> None:
    (found,) = find_all({"tests/a.py": CLEAR.replace("the file.", "the file.\n\n    Never anew.\n    ")})
    assert (found.path, found.line) == ("tests/a.py", 7)


def test_a_name_that_two_modules_define_is_found_in_both() -> None:
    assert rules(a=CLEAR, b=CLEAR) == [
        "load is also defined in server/forkjoin/b.py",
        "load is also defined in server/forkjoin/a.py",
    ]


def test_a_short_module_with_a_single_importer_is_found() -> None:
    importing = '"""A module."""\n\nfrom forkjoin import a\n'
    assert rules(a=CLEAR, b=importing) == ["has 5 lines and a single importer, server/forkjoin/b.py"]
    assert rules(a=CLEAR, b=importing, c=importing) == []


def test_a_module_of_more_than_400_lines_is_found() -> None:
    assert rules(a=CLEAR + 400 * "\n") == ["has 405 lines, more than 400"]
