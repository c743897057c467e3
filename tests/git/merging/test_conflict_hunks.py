"""The conflicts of a merge are shown by file and line, with both sides, up to a limit."""

from pathlib import Path

from forkjoin.git.merge_tree import try_merge
from forkjoin.git.merging.conflict_hunks import find_hunks
from support.branches import commit
from support.harness import git


async def hunks(repository: Path, ours: dict[str, str | None], theirs: dict[str, str | None]) -> list[str]:
    git(repository, "switch", "-q", "-c", "theirs")
    commit(repository, theirs)
    git(repository, "switch", "-q", "main")
    commit(repository, ours)
    merged = await try_merge(str(repository / ".git"), "main", "theirs")
    assert merged.conflicts
    return await find_hunks(str(repository / ".git"), merged.tree, merged.conflicts)


async def test_each_conflict_is_shown_with_its_line_and_both_sides(repository: Path) -> None:
    text = "".join(f"{number}\n" for number in range(20))
    commit(repository, {"a": text})
    ours, theirs = text.replace("3\n", "o3\n", 1), text.replace("3\n", "t3\n", 1)
    found = await hunks(repository, {"a": ours.replace("18\n", "o18\n")}, {"a": theirs.replace("18\n", "t18\n")})
    assert found == [
        "a, line 4:\n<<<<<<<\no3\n=======\nt3\n>>>>>>>",
        "a, line 23:\n<<<<<<<\no18\n=======\nt18\n>>>>>>>",
    ]


async def test_many_and_long_conflicts_are_shortened(repository: Path) -> None:
    lines = [f"{number}\n" for number in range(60)]
    commit(repository, {"a": "".join(lines)})
    sides: list[str] = []
    for side in "ot":
        changed = [f"{side * 900}\n" if number % 10 == 5 else line for number, line in enumerate(lines)]
        sides.append("".join(changed))
    found = await hunks(repository, {"a": sides[0]}, {"a": sides[1]})
    assert [len(one) <= 640 for one in found] == [True] * 4
    assert found[3] == "a: … and 3 more"


async def test_a_conflict_without_lines_has_no_hunk(repository: Path) -> None:
    assert await hunks(repository, {"README.md": None}, {"README.md": "edited\n"}) == []
