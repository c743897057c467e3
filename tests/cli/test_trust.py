"""forkjoin trust: a repository's commands run only after a person allowed exactly these."""

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from forkjoin.core.paths import Home
from support.branches import commit
from support.harness import forkjoin, git, open_lead_in_memory
from support.repository_configs import want

#: verify leaves a line in a file, so that its runs can be counted.
VERIFY = 'verify = "echo ran >> {0}"\n'


@pytest.fixture
def ran(tmp_path: Path) -> Path:
    file = tmp_path / "ran"
    file.touch()
    return file


def runs(ran: Path) -> int:
    return len(ran.read_text().splitlines())


async def test_a_repositorys_verify_is_used_only_once_it_is_trusted_for_exactly_its_content(
    repository: Path, home: Home, ran: Path
) -> None:
    commit(repository, {"forkjoin.toml": VERIFY.format(ran)})
    async with open_lead_in_memory(home, repository) as lead:
        refused = await lead.refusal("spawn_agent", task="echo 1 > 1.txt")
        assert "nobody has trusted" in refused
        assert "forkjoin trust" in refused
        spawned = await lead.call("spawn_agent", task="echo 1 > 1.txt", verify="")
        assert "nobody has trusted" in spawned["note"]
        await lead.call("wait_agents", ids=["a1"])
        assert 'verify=""' in await lead.refusal("merge_worktree", ids=["a1"])
        note = (await lead.call("merge_worktree", ids=["a1"], verify=""))["note"]
        assert "forkjoin trust" in note
        assert "No verify was run." in note
        assert ((await lead.call("get_result", id="a1"))["verify"], runs(ran)) == ("none", 0)

        forkjoin(repository, "trust", "--yes")
        assert "note" not in await lead.call("spawn_agent", task="echo 2 > 2.txt")
        await lead.call("wait_agents", ids=["a2"])
        assert ((await lead.call("get_result", id="a2"))["verify"], runs(ran)) == ("passed", 1)
        await lead.call("merge_worktree", ids=["a2"], dry_run=True)
        assert runs(ran) == 1
        assert "note" not in await lead.call("merge_worktree", ids=["a2"])
        assert runs(ran) == 2

        await lead.run("echo 3 > 3.txt", verify="true")
        await lead.run("echo 4 > 4.txt", verify="")
        assert (await lead.call("get_result", id="a4"))["verify"] == "none"
        assert runs(ran) == 2, "the call's own stands before it"
        (repository / "forkjoin.toml").write_text(VERIFY.format(f"{ran}2"))
        assert "nobody has trusted" in await lead.refusal("spawn_agent", task="true")
        (repository / "forkjoin.toml").write_text(VERIFY.format(ran))
        assert "note" not in await lead.call("spawn_agent", task="true")
        forkjoin(repository, "trust", "--revoke")
        assert "nobody has trusted" in await lead.refusal("spawn_agent", task="true")
        await lead.call("wait_agents")
    assert not Path(f"{ran}2").exists()


def append_a_comment(file: Path) -> None:
    file.write_text(f"{file.read_text()}# a comment\n")


def say_nothing(file: Path) -> None:
    file.write_text("# nothing\n")


def take_it_away(file: Path) -> None:
    file.unlink()


def put_a_folder_there(file: Path) -> None:
    file.unlink()
    file.mkdir()


def put_a_pipe_there(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


_NONE = "There is no forkjoin.toml to use in "
#: The error for each change of forkjoin.toml.
LOST: dict[Callable[[Path], None], str] = {
    append_a_comment: "nobody has trusted its present content.",
    say_nothing: "nobody has trusted its present content. It has no verify, but the version that a person trusted last",
    take_it_away: _NONE,
    put_a_folder_there: _NONE,
    put_a_pipe_there: _NONE,
}


@pytest.mark.parametrize("change", LOST)
async def test_after_a_change_of_trusted_configuration_merges_and_spawns_must_name_a_verify(
    repository: Path, home: Home, ran: Path, change: Callable[[Path], None]
) -> None:
    commit(repository, {"forkjoin.toml": VERIFY.format(ran)})
    forkjoin(repository, "trust", "--yes")
    async with open_lead_in_memory(home, repository) as lead:
        await lead.run("echo 1 > 1.txt", "echo 2 > 2.txt")
        assert runs(ran) == 2
        change(repository / "forkjoin.toml")
        for tool, arguments in (("merge_worktree", {"ids": ["a1"]}), ("spawn_agent", {"task": "true"})):
            refused = await lead.refusal(tool, **arguments)
            assert f"(trusted last: 'echo ran >> {ran}')" in refused
            assert "forkjoin trust --keep" in refused
            assert LOST[change] in refused
        assert not (repository / "1.txt").exists()
        assert "No verify was run." in (await lead.call("merge_worktree", ids=["a1"], verify=""))["note"]
        assert runs(ran) == 2
        forkjoin(repository, "trust", "--keep")
        await lead.call("merge_worktree", ids=["a2"])
        note = (await lead.call("spawn_agents", agents=[{"task": "true"}], dry_run=True))["note"]
        assert LOST[change] in note
        assert "The version that a person trusted last is used." in note
        assert runs(ran) == 3
        forkjoin(repository, "trust", "--yes")
        await lead.run("true")
        assert runs(ran) == (4 if change is append_a_comment else 3)


async def test_going_back_to_a_trusted_configuration_without_verify_is_refused(
    repository: Path, home: Home, ran: Path
) -> None:
    for text in ("ports = 3\n", VERIFY.format(ran)):
        commit(repository, {"forkjoin.toml": text})
        forkjoin(repository, "trust", "--yes")
    (repository / "forkjoin.toml").write_text("ports = 3\n")
    async with open_lead_in_memory(home, repository) as lead:
        assert "forkjoin.toml was not used. It has no verify, but" in await lead.refusal("spawn_agent", task="true")
        assert "verify was removed" in forkjoin(repository, "trust", "--show", check=False).stdout
        forkjoin(repository, "trust", "--yes")
        assert "forkjoin.toml" not in (await lead.call("spawn_agent", task="true"))["note"]
        await lead.call("wait_agents")


async def test_a_merge_that_changes_forkjoin_toml_says_so_and_the_next_is_refused(
    repository: Path, home: Home, ran: Path
) -> None:
    commit(repository, {"forkjoin.toml": VERIFY.format(ran)})
    forkjoin(repository, "trust", "--yes")
    async with open_lead_in_memory(home, repository) as lead:
        await lead.run("echo '# a comment' >> forkjoin.toml", "touch broken")
        assert "changes forkjoin.toml" in (await lead.call("merge_worktree", ids=["a1"]))["note"]
        assert "nobody has trusted" in await lead.refusal("merge_worktree", ids=["a2"])
    shown = forkjoin(repository, "trust", "--show", check=False)
    assert (shown.returncode, "+# a comment" in shown.stdout.splitlines()) == (1, True)
    done = forkjoin(repository, "merge", "a2", check=False)
    assert (done.returncode, "nobody has trusted" in done.stderr) == (1, True)
    done = forkjoin(repository, "merge", "a2", "--verify", "", check=False)
    assert (done.returncode, "No verify was run." in done.stderr) == (0, True)


async def test_an_untrusted_forkjoin_toml_without_verify_is_only_noted(repository: Path, home: Home) -> None:
    (repository / "forkjoin.toml").write_text("ports = 3\n")
    async with open_lead_in_memory(home, repository) as lead:
        assert "nobody has trusted" in (await lead.call("spawn_agent", task="true"))["note"]
        await lead.call("wait_agents")


async def test_old_trust_records_without_the_content_refuse_changed_configuration(
    repository: Path, home: Home, ran: Path
) -> None:
    want(repository, home, VERIFY.format(ran))
    (record,) = home.trust.iterdir()
    said = json.loads(record.read_text())
    record.write_text(json.dumps({key: said[key] for key in ("repository", "commands", "files")}))
    async with open_lead_in_memory(home, repository) as lead:
        await lead.run("true")
        (repository / "forkjoin.toml").write_text("ports = 3\n")
        assert "nobody has trusted" in await lead.refusal("spawn_agent", task="true")
    assert "trusted here before" in forkjoin(repository, "trust", "--keep", check=False).stderr


async def test_a_damaged_record_of_trust_refuses_a_merge_without_a_verify(repository: Path, home: Home) -> None:
    want(repository, home, 'verify = "true"')
    (record,) = home.trust.iterdir()
    record.write_text("{broken")
    (repository / "forkjoin.toml").unlink()
    async with open_lead_in_memory(home, repository) as lead:
        (agent,) = await lead.run("echo x > x", verify="true")
        assert "is damaged" in await lead.refusal("merge_worktree", ids=[agent])
        assert (await lead.call("merge_worktree", ids=[agent], verify="true"))["merged"]


def test_everything_in_forkjoin_toml_is_shown_before_it_is_trusted(repository: Path, home: Home) -> None:
    commands = 'setup = "npm ci"\nteardown = "x\\ny"\nports = 3\n'
    (repository / "forkjoin.toml").write_text(f'{commands}[share]\n".venv" = "link"\n[environment]\nA = "$HOME"\n')
    lines = ("setup = npm ci", r"teardown = x\ny", "ports = 3", "share: .venv = link", "environment: A = $HOME")
    shown = forkjoin(repository, "trust", stdin="n\n", check=False).stdout
    assert shown.splitlines()[: len(lines)] == [f"NEW      {repository}/forkjoin.toml: {line}" for line in lines]
    assert "share: .venv = link" in forkjoin(repository, "doctor", "--json", check=False).stdout
    forkjoin(repository, "trust", stdin="y\n")
    assert forkjoin(repository, "trust", "--show").stdout.startswith("trusted")


async def test_an_invalid_forkjoin_toml_gets_an_error_message(repository: Path, home: Home) -> None:
    file = repository / "forkjoin.toml"
    async with open_lead_in_memory(home, repository) as lead:
        for text, says in (("verfy = 'x'", "verfy: Extra inputs"), ("verify = 5", "verify"), ("x", "forkjoin.toml: ")):
            file.write_text(text)
            assert says in await lead.refusal("spawn_agent", task="true")
            assert says in forkjoin(repository, "trust", "--yes", check=False).stderr
        file.write_text("x = 1\n" * 100_000)
        assert "is larger than 64 KB" in await lead.refusal("spawn_agent", task="true")
        file.unlink()
        os.mkfifo(file)
        assert "note" not in await lead.call("spawn_agent", task="true")
        await lead.call("wait_agents")


async def test_a_forkjoin_toml_in_an_agents_worktree_counts_for_nothing(
    repository: Path, home: Home, ran: Path
) -> None:
    async with open_lead_in_memory(home, repository) as lead:
        await lead.run(f"echo 'verify = \"echo ran >> {ran}\"' > forkjoin.toml")
        (worktree,) = home.worktrees.glob("*/a1-*")
        assert "an agent's worktree" in forkjoin(worktree, "trust", "--yes", check=False).stderr
    async with open_lead_in_memory(home, worktree, "session-2") as lead:
        assert "note" not in await lead.call("spawn_agent", task="true")
        await lead.call("wait_agents")


async def test_commands_in_the_configuration_are_run_once_they_are_trusted(repository: Path, home: Home) -> None:
    commit(repository, {".gitattributes": "*.up filter=up\n"})
    async with open_lead_in_memory(home, repository) as lead:
        await lead.run("git config filter.up.clean 'tr a-z A-Z'", "true")
        shown = forkjoin(repository, "trust", "--show", check=False)
        assert (shown.returncode, shown.stdout.split(maxsplit=1)[0]) == (1, "NEW")
        assert "filter.up.clean = tr a-z A-Z" in shown.stdout
        assert "filter.up.clean" in forkjoin(repository, "doctor", check=False).stdout.replace("\n", "")
        for answer, code, blob in (("n\n", 1, "x"), ("y\n", 0, "X")):
            assert forkjoin(repository, "trust", stdin=answer, check=False).returncode == code
            (id_,) = await lead.run("echo x > x.up")
            branch = (await lead.call("get_result", id=id_))["branch"]
            assert git(repository, "cat-file", "blob", f"{branch}:x.up") == blob
            landed = await lead.call("merge_worktree", ids=[id_], dry_run=True)
            assert ("filter.up.clean" in landed.get("note", "")) == (code != 0)
        assert (await lead.call("get_status"))["trouble"] == []
        assert forkjoin(repository, "trust", "--show").stdout.startswith("trusted")
    (record,) = home.trust.iterdir()
    assert stat.S_IMODE(record.stat().st_mode) == 0o600


def test_control_characters_in_configuration_are_shown_escaped(repository: Path, home: Home) -> None:
    git(repository, "config", "filter.x.clean", "evil\x1b[2K\r\u202eharmless")
    said = forkjoin(repository, "trust", "--show", check=False).stdout
    assert "evil\\x1b[2K\\r\\u202eharmless" in said


def test_trust_without_anything_to_trust_says_so_and_records_nothing(repository: Path, home: Home) -> None:
    assert forkjoin(repository, "trust").stdout == "Nothing here needs your trust.\n"
    assert not home.trust.exists()


def test_an_agent_can_trust_nothing(repository: Path, home: Home) -> None:
    (repository / "forkjoin.toml").write_text(VERIFY)
    for option in ("--yes", "--revoke", "--show", "--restore"):
        done = forkjoin(repository, "trust", option, check=False, env={"FORKJOIN_TOKEN": "x"})
        assert (done.returncode, "An agent can't trust anything" in done.stderr) == (1, True)
    assert not home.trust.exists()


async def test_changed_shared_configuration_is_shown_and_accepted_or_restored(repository: Path, home: Home) -> None:
    hook = repository / ".git" / "hooks" / "post-checkout"
    plant = 'echo evil > "$(git rev-parse --path-format=absolute --git-common-dir)/hooks/post-checkout"'
    async with open_lead_in_memory(home, repository) as lead:
        await lead.run(f"git config user.name \"$(printf 'Claude\\033')\"; {plant}")
    shown = forkjoin(repository, "trust", "--show", check=False)
    assert shown.returncode == 1
    assert [line for line in shown.stdout.splitlines() if line.startswith("CHANGED")] == [
        r"CHANGED  config: user.name = Claude\x1b",
        "CHANGED  hooks/post-checkout: added",
    ]
    found = json.loads(forkjoin(repository, "doctor", "--json", check=False).stdout)
    (changed,) = [finding for finding in found if finding["what"] == "shared config"]
    assert (changed["ok"], "user.name" in changed["found"], "forkjoin trust" in changed["remedy"]) == (
        False,
        True,
        True,
    )

    assert forkjoin(repository, "trust", "--restore", stdin="n\n", check=False).returncode == 1
    assert hook.exists()
    forkjoin(repository, "trust", "--restore", stdin="y\n")
    assert (hook.exists(), git(repository, "config", "user.name")) == (False, "Test")
    assert [file.read_text() for file in home.shared_config.rglob("replaced-*/hooks/*")] == ["evil\n"]
    assert forkjoin(repository, "trust").stdout == "Nothing here needs your trust.\n"

    git(repository, "config", "user.name", "Mine")
    forkjoin(repository, "trust", "--yes")
    assert forkjoin(repository, "trust", "--show").stdout == "Nothing here needs your trust.\n"
    assert git(repository, "config", "user.name") == "Mine"
