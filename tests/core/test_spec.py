"""The validation of names, tasks and permission rules."""

import re

import pytest
from forkjoin.core.agent_spec import Permissions, Spec, check_name, slug
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError


@given(st.text())
def test_a_slug_is_a_valid_name_or_empty(text: str) -> None:
    made = slug(text)
    assert made == "" or check_name(made) == made
    assert len(made) <= 34


@given(st.text(max_size=80))
def test_a_name_is_unchanged_or_refused_with_the_rule(name: str) -> None:
    try:
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", check_name(name))
    except ValueError as error:
        assert "a name is 1 to 64" in str(error)


@pytest.mark.parametrize("name", ["a1", "a12", "x/y", "x.lock", "", "-x", "x y", "é", "x\0", "@{-1}"])
def test_a_name_that_looks_like_an_id_or_is_no_valid_ref_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="a name is 1 to 64"):
        check_name(name)


@pytest.mark.parametrize("task", ["", "  \n", "a\0b", "\ud800", 5, None])
def test_a_task_that_no_program_can_read_is_refused(task: object) -> None:
    with pytest.raises(ValidationError):
        Spec.model_validate({"task": task})


@pytest.mark.parametrize(
    "rule", ["WebFetch", "Bash(npm test:*)", "Edit(/docs/**)", "mcp__github__*", "WebFetch(domain:example.com)"]
)
def test_a_permission_rule_of_claude_is_accepted(rule: str) -> None:
    assert Permissions(allow=(rule,), deny=(rule,)).allow == (rule,)


@pytest.mark.parametrize(
    "rule",
    [
        "",
        "Bash(",
        "Bash()",
        "bash(ls)",
        "Bash(ls) x",
        "Bash (ls)",
        "Bash(a\nb)",
        "*",
        "B*",
        f"Bash({'x' * 500})",
        5,
        None,
    ],
)
def test_a_rule_that_claude_would_ignore_is_refused(rule: object) -> None:
    with pytest.raises(ValidationError):
        Permissions.model_validate({"deny": [rule]})


def test_at_most_100_rules_are_accepted() -> None:
    with pytest.raises(ValidationError, match="at most 100"):
        Permissions(deny=("WebFetch",) * 101)


def test_an_allow_list_replaces_the_default_and_deny_lists_add_up() -> None:
    settings = Permissions(allow=("WebFetch",), deny=("Bash(rm:*)",))
    assert Permissions(allow=(), deny=("WebSearch",)).over(settings) == Permissions(
        allow=(), deny=("Bash(rm:*)", "WebSearch")
    )
    assert Permissions().over(settings) == settings
