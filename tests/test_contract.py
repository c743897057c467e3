"""The public contract: nothing that version 0.1 offered is renamed, removed or narrowed. More may be added.

`support/public_contract.py` observes the installed version. `contract.json` records version 0.1, and is never written
from a later version.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.public_contract import FILE, Contract, observe

#: The words for the two levels of each section, which error messages use.
CALLED = {
    "tools": ("tool", "annotation"),
    "parameters": ("tool", "parameter"),
    "results": ("tool", "result field"),
    "an agent's tools": ("agent's tool", "annotation"),
    "an agent's parameters": ("agent's tool", "parameter"),
    "an agent's results": ("agent's tool", "result field"),
    "specs": ("tool", "a call with"),
    "resources": ("resource", ""),
    "prompts": ("prompt", "argument"),
    "commands": ("command", "option or"),
    "json": ("the JSON of forkjoin", "field"),
    "exit codes": ("forkjoin", ""),
    "log": ("the log of agent", "events of kind"),
    "names": ("of agent", "its"),
    "settings": ("settings", "key"),
    "variables": ("variables of", ""),
    "plugin": ("the plugin's", ""),
}
#: Sections of inputs, which may accept more than before. The other sections are outputs, which may get only new values.
INPUTS = {"parameters", "an agent's parameters", "prompts", "commands", "settings"}


def broken(old: Contract, new: Contract) -> list[str]:
    """Return a sentence for each part of the old contract that the new one breaks."""
    return [
        sentence
        for section, owners in old.items()
        for owner, names in owners.items()
        for sentence in _broken_of(section, owner, names, new.get(section, {}).get(owner))
    ]


def _broken_of(section: str, owner: str, old: dict[str, str], new: dict[str, str] | None) -> Iterator[str]:
    kind, part = CALLED[section]
    if new is None:
        yield f"{kind} {owner} is gone"
        return
    for name, words in old.items():
        label = f"{kind} {owner}: {part} {name}".replace(":  ", ": ")
        if name not in new:
            yield f"{label} is gone"
        elif differences := _differences(set(words.split()), set(new[name].split()), is_input=section in INPUTS):
            yield f"{label} is {', '.join(differences)}"
    for name in new.keys() - old.keys() if section in INPUTS else ():
        parent = name.rpartition(".")[0]
        if "required" in new[name].split() and (not parent or parent in old):
            yield f"{kind} {owner}: {part} {name} is new and required"


def _differences(old: set[str], new: set[str], *, is_input: bool) -> list[str]:
    """Return the incompatible differences between the old and the new words of a part."""
    lost, fresh = old - new, new - old
    if not is_input:
        return [
            *(f"no longer {word}" for word in sorted(lost)),
            *(f"now {word}" for word in sorted(fresh) if word[0] != "="),
        ]
    if "any" in new:
        lost = {word for word in lost if word.startswith("default=")}
    if "number" in new:
        lost -= {"integer"}
    if not any(word.startswith("=") for word in new):
        lost = {word for word in lost if not word.startswith("=")}
    fresh_values = any(word.startswith("=") for word in new) and not any(word.startswith("=") for word in old)
    return [
        *(f"no longer {word}" for word in sorted(lost - {"required"})),
        *(["now required"] if "required" in fresh else []),
        *(["now only some values"] if fresh_values else []),
    ]


def test_everything_that_version_0_1_offered_is_still_offered(tmp_path: Path) -> None:
    sentences = broken(json.loads(FILE.read_text()), observe(tmp_path))
    assert not sentences, "\n".join(sentences)


OLD: Contract = {
    "parameters": {"merge": {"ids": "array required", "how": "string =a =b", "of.x": "integer", "of": "object"}},
    "results": {"merge": {"state": "always string =done", "note": "null string"}},
}


@pytest.mark.parametrize(
    ("section", "changed", "expected"),
    [
        ("parameters", {"ids": None}, "tool merge: parameter ids is gone"),
        (
            "parameters",
            {"how": "string =a"},
            "tool merge: parameter how is no longer =b",
        ),
        ("parameters", {"of.x": "integer required"}, "now required"),
        ("parameters", {"of.y": "string required"}, "tool merge: parameter of.y is new and required"),
        ("parameters", {"of.x": "string"}, "no longer integer"),
        ("results", {"note": None}, "tool merge: result field note is gone"),
        ("results", {"state": "string =done"}, "no longer always"),
        ("results", {"state": "always string null =done"}, "now null"),
    ],
)
def test_a_removed_or_narrowed_part_breaks_the_contract(
    section: str, changed: dict[str, str | None], expected: str
) -> None:
    merge = {name: words for name, words in (OLD[section]["merge"] | changed).items() if words is not None}
    (sentence,) = broken(OLD, OLD | {section: {"merge": merge}})
    assert expected in sentence


def test_added_tools_parameters_and_fields_keep_the_contract() -> None:
    parameters = {"ids": "array string", "how": "string =a =b =c", "of.x": "number", "of": "object", "new": "string"}
    results = {"state": "always string =done =begun", "note": "null string", "new": "string", "other": "always string"}
    assert broken(OLD, {"parameters": {"merge": parameters, "other": {}}, "results": {"merge": results}}) == []
    assert broken(OLD, OLD | {"results": {}}) == ["tool merge is gone"]
