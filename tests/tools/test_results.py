"""get_result, read_log and read_diff."""

import re
from pathlib import Path

from forkjoin.core.paths import Home
from support.harness import Lead, first_answer, forkjoin

FOREVER = "sleep 1000"


async def test_a_result_counts_what_was_done(any_lead: Lead) -> None:
    task = "echo a > a.txt; git add .; git commit -qm 'add a'; sed -i 1d shared.txt; echo all good"
    (first,) = await any_lead.run(task)
    result = await any_lead.call("get_result", id=first)
    assert (result["state"], result["merge"], result["verify"]) == ("succeeded", "unmerged", "none")
    assert (result["files_changed"], result["insertions"], result["deletions"]) == (2, 1, 1)
    assert [commit.partition(" ")[2] for commit in result["commits"]] == [
        f"Uncommitted work of {first} ({result['name']})",
        "add a",
    ]
    assert (result["summary"], result["output"]) == ("all good", "all good\n")
    assert result["warnings"] == ["1 uncommitted path was committed for the agent."]


async def test_an_agent_that_changed_nothing_says_so(near_lead: Lead) -> None:
    (first,) = await near_lead.run("echo done")
    result = await near_lead.call("get_result", id=first)
    assert (result["state"], result["merge"], result["commits"]) == ("succeeded", "nothing", [])
    assert "nothing to merge" in result["warnings"][0]


async def test_a_failure_names_the_exit_code_and_the_end_of_stderr(near_lead: Lead) -> None:
    (first,) = await near_lead.run("echo success; echo broken >&2; exit 3")
    result = await near_lead.call("get_result", id=first)
    assert result["state"] == "failed"
    assert result["error"] == "exit 3\nbroken"
    assert result["summary"].startswith("exit 3 broken")


async def test_a_failing_verify_fails_the_agent_and_its_output_is_in_the_result(near_lead: Lead) -> None:
    (first,) = await near_lead.run("echo x > x.txt", verify="echo 2 of 3 failed; exit 1")
    result = await near_lead.call("get_result", id=first)
    assert (result["state"], result["verify"]) == ("failed", "failed")
    assert result["verify_output"] == "2 of 3 failed\n[exit 1]"
    assert result["summary"] == "verify failed: 2 of 3 failed"


async def test_a_long_output_is_cut_and_says_where_the_rest_is(near_lead: Lead) -> None:
    (first,) = await near_lead.run("seq 1 5000")
    concise = await near_lead.call("get_result", id=first)
    assert re.search(r"\[cut: \d+ more characters; read_log\('a1', raw=true\) has all\]", concise["output"])
    full = await near_lead.call("get_result", id=first, detail="full")
    assert full["output"].endswith("5000\n")


async def test_a_commands_log_is_its_output_in_pages(near_lead: Lead) -> None:
    (first,) = await near_lead.run("seq 1 2000")
    text, offset = "", 0
    while True:
        page = await near_lead.call("read_log", id=first, offset=offset, limit=3000)
        body, _, where = page.rpartition("\n[")
        text += f"{body}\n"
        found = re.search(r"offset=(\d+)", where)
        if not found:
            break
        offset = int(found[1])
    assert text.split() == [str(n) for n in range(1, 2001)]


async def test_the_tail_of_a_log_is_its_last_lines(near_lead: Lead) -> None:
    (first,) = await near_lead.run("seq 1 100")
    assert await near_lead.call("read_log", id=first, tail=2) == "99\n100\n[end]"


async def test_a_diff_shows_what_changed_whole_or_by_path_or_in_numbers(near_lead: Lead) -> None:
    (first,) = await near_lead.run("mkdir d; echo new > d/new.txt; echo more >> shared.txt")
    whole = await near_lead.call("read_diff", id=first)
    assert "+more" in whole
    assert "+new" in whole
    part = await near_lead.call("read_diff", id=first, path="d")
    assert "+new" in part
    assert "+more" not in part
    stat = await near_lead.call("read_diff", id=first, stat=True)
    assert "2 files changed, 2 insertions(+)" in stat
    assert "changed nothing in README.md" in await near_lead.call("read_diff", id=first, path="README.md")


async def test_the_diff_of_a_running_agent_is_of_its_worktree_now(near_lead: Lead) -> None:
    (first,) = await near_lead.spawn(f"echo more >> shared.txt; echo u > untracked.txt; {FOREVER}")

    async def has_both() -> bool:
        diff = await near_lead.call("read_diff", id=first)
        return "+more" in diff and "new, not in git yet: untracked.txt" in diff

    await first_answer(has_both)
    await near_lead.call("stop_agents", ids=[first])


async def test_a_path_is_never_an_option_or_a_pattern(near_lead: Lead) -> None:
    (first,) = await near_lead.run("echo more >> shared.txt")
    for path in ("--output=x", "*", ":(exclude)shared.txt", "../../etc/passwd"):
        assert "changed nothing" in await near_lead.call("read_diff", id=first, path=path)


def test_a_person_reads_result_diff_and_log(repository: Path, home: Home) -> None:
    forkjoin(repository, "spawn", "echo said; echo line > new.txt", "--name", "writer")
    forkjoin(repository, "wait")
    result = forkjoin(repository, "result", "writer").stdout
    assert "succeeded" in result
    assert "1 files, +1 -0" in result
    assert "+line" in forkjoin(repository, "diff", "writer").stdout
    assert forkjoin(repository, "logs", "writer").stdout == "said\n"


def test_following_a_log_ends_with_the_agent(repository: Path, home: Home) -> None:
    forkjoin(repository, "spawn", "for n in 1 2 3; do echo $n; sleep 0.1; done", "--name", "slow")
    assert forkjoin(repository, "logs", "-f", "slow").stdout.split() == ["1", "2", "3"]
