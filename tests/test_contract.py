"""The public contract: what version 0.1 offered is not renamed, removed or narrowed. More may be added.

`contract.py` finds what is offered; `contract.json` records what 0.1 did, and is never written from a later version.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.public_contract import FILE, Contract, observe

#: How a section's parts are called: what has names, and a name in it.
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
#: Sections of what is asked, where more may be taken; in the others nothing else may be told than was, but new values.
ASKED = {"parameters", "an agent's parameters", "prompts", "commands", "settings"}


def broken(old: Contract, new: Contract) -> list[str]:
    """What of the old contract the new one does not keep, a sentence each."""
    return [
        said
        for section, owners in old.items()
        for owner, names in owners.items()
        for said in _broken_of(section, owner, names, new.get(section, {}).get(owner))
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
        elif lost := _lost(set(words.split()), set(new[name].split()), asked=section in ASKED):
            yield f"{label} is {', '.join(lost)}"
    for name in new.keys() - old.keys() if section in ASKED else ():
        within = name.rpartition(".")[0]
        if "required" in new[name].split() and (not within or within in old):
            yield f"{kind} {owner}: {part} {name} is new and required"


def _lost(old: set[str], new: set[str], *, asked: bool) -> list[str]:
    """How a part is not what it was, in words."""
    lost, fresh = old - new, new - old
    if not asked:
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
    said = [f"no longer {word}" for word in sorted(lost - {"required"})]
    fresh_values = any(word.startswith("=") for word in new) and not any(word.startswith("=") for word in old)
    return [
        *said,
        *(["now required"] if "required" in fresh else []),
        *(["now only some values"] if fresh_values else []),
    ]


def test_what_version_0_1_offered_is_offered_still(tmp_path: Path) -> None:
    told = broken(json.loads(FILE.read_text()), observe(tmp_path))
    assert not told, "\n".join(told)


OLD: Contract = {
    "parameters": {"merge": {"ids": "array required", "how": "string =a =b", "of.x": "integer", "of": "object"}},
    "results": {"merge": {"state": "always string =done", "note": "null string"}},
}


@pytest.mark.parametrize(
    ("section", "changed", "said"),
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
def test_what_is_gone_or_narrowed_is_told(section: str, changed: dict[str, str | None], said: str) -> None:
    merge = {name: words for name, words in (OLD[section]["merge"] | changed).items() if words is not None}
    (told,) = broken(OLD, OLD | {section: {"merge": merge}})
    assert said in told


def test_more_may_be_added() -> None:
    parameters = {"ids": "array string", "how": "string =a =b =c", "of.x": "number", "of": "object", "new": "string"}
    results = {"state": "always string =done =begun", "note": "null string", "new": "string", "other": "always string"}
    assert broken(OLD, {"parameters": {"merge": parameters, "other": {}}, "results": {"merge": results}}) == []
    assert broken(OLD, OLD | {"results": {}}) == ["tool merge is gone"]
