"""No secret that an agent prints reaches a lead or the records. The raw output on disk stays unchanged."""

import json
import sqlite3
import stat
from pathlib import Path
from typing import Any

import pytest
from forkjoin.core.paths import Home
from forkjoin.core.redaction import MARK
from forkjoin.core.result import OUTPUT_LIMIT
from support.harness import Lead, first_answer, forkjoin

PASSWORD = "correct-horse-battery"
KEY = "sk-ant-" + "api03-Q7Q7Q7Q7Q7Q7"
#: Prints output as claude does, with keys in every text.
CLAUDE = r"""#!/bin/sh
read -r task; K=$KEY P=$MY_PASSWORD SAID='{"type":"assistant","message":{"content":['
printf '{"type":"system","subtype":"init","session_id":"s","model":"m"}\n'
printf '%s{"type":"text","text":"found:\\n%s and %s"}]}}\n' "$SAID" "$K" "$P"
printf '%s{"type":"tool_use","name":"Bash","input":{"command":"curl -H %s"}}]}}\n' "$SAID" "$K"
printf 'no JSON: %s\n' "$KEY"
printf '{"type":"result","subtype":"success","result":"it is %s"}\n' "$MY_PASSWORD"
"""


@pytest.fixture(autouse=True)
def secrets(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put secrets into the environment of leads, and a token into the configuration."""
    monkeypatch.setenv("MY_PASSWORD", PASSWORD)
    monkeypatch.setenv("KEY", KEY)
    program = tmp_path / "claude"
    program.write_text(CLAUDE)
    program.chmod(0o755)
    home.config_file.write_text(
        home.config_file.read_text()
        + f"[agents.fake]\nkind = 'claude'\ncommand = ['{program}']\n"
        + "environment = { THEIR_TOKEN = 'of-the-settings' }\n"
    )


def _without_keys(answer: Any) -> str:
    text = answer if isinstance(answer, str) else json.dumps(answer)
    assert KEY not in text
    assert PASSWORD not in text
    assert "of-the-settings" not in text
    return text


async def test_a_commands_output_and_errors_contain_no_secret_for_the_lead(near_lead: Lead) -> None:
    task = 'echo "$MY_PASSWORD"; echo "$KEY" >&2; echo "last: $KEY"; exit 3'
    ended = await near_lead.call("wait_agents", ids=await near_lead.spawn(task))
    assert MARK in _without_keys(ended)
    for tool, arguments in (
        ("get_result", {"detail": "full"}),
        ("get_result", {}),
        ("read_log", {}),
        ("read_log", {"raw": True, "tail": 5}),
    ):
        assert MARK in _without_keys(await near_lead.call(tool, id="a1", **arguments)), tool
    assert MARK in _without_keys((await near_lead.call("list_agents"))["agents"][0]["last_event"])


async def test_a_running_commands_output_and_its_commits_contain_no_secret_for_the_lead(
    near_lead: Lead, home: Home
) -> None:
    commit = 'git commit -q --allow-empty -m "by $MY_PASSWORD"'
    (first,) = await near_lead.spawn(f'{commit}; echo "$KEY"; until test -e {home.state}/go; do sleep 0.02; done')

    async def is_told_without_key() -> bool:
        return MARK in _without_keys(await near_lead.call("list_agents"))

    await first_answer(is_told_without_key)
    (home.state / "go").touch()
    await near_lead.call("wait_agents", ids=[first])
    assert f"by {MARK}" in _without_keys((await near_lead.call("get_result", id=first))["commits"])


async def test_a_verify_and_a_diff_contain_no_secret_for_the_lead(near_lead: Lead) -> None:
    (first,) = await near_lead.run('echo "$KEY" > leaked.txt', verify='echo "$MY_PASSWORD"; exit 1')
    assert MARK in _without_keys(await near_lead.call("get_result", id=first))
    assert f"+{MARK}" in _without_keys(await near_lead.call("read_diff", id=first))


async def test_an_error_repeats_no_secret(near_lead: Lead) -> None:
    for arguments in ({"task": "x", "base": KEY}, {"task": "x", "name": PASSWORD + "/x"}, {"task": "x", KEY: 1}):
        assert MARK in _without_keys(await near_lead.refusal("spawn_agent", **arguments))
    assert MARK in _without_keys(await near_lead.refusal("get_result", id=KEY))


async def test_a_name_is_not_redacted_even_if_it_equals_a_password(near_lead: Lead) -> None:
    answer = await near_lead.call("spawn_agent", task="true", name=PASSWORD)
    assert (answer["name"], PASSWORD in answer["branch"]) == (PASSWORD, True)


async def test_events_results_and_raw_pages_contain_no_secret(lead: Lead, repository: Path, home: Home) -> None:
    (first,) = await lead.run("work", agent="fake")
    shown = _without_keys(await lead.call("read_log", id=first))
    assert f"said: found: {MARK} and {MARK}" in shown
    assert f"unreadable: no JSON: {MARK}" in shown
    assert (await lead.call("get_result", id=first))["output"] == f"it is {MARK}"
    raw = _without_keys(await lead.call("read_log", id=first, raw=True))
    lines = [json.loads(line) for line in raw.splitlines() if line.startswith("{")]
    assert lines[1]["message"]["content"][0]["text"] == f"found:\n{MARK} and {MARK}"
    with sqlite3.connect(home.records) as records:
        for table in ("event", "result", "agent"):
            _without_keys(str(records.execute(f"SELECT * FROM {table}").fetchall()))
    records.close()
    output = home.attempts / "a1-1" / "output"
    assert KEY in output.read_text()
    assert stat.S_IMODE(output.stat().st_mode) == 0o600
    assert _without_keys(forkjoin(repository, "logs", first, "--raw").stdout)


async def test_a_key_that_a_page_would_cut_in_two_is_on_the_next_whole(near_lead: Lead) -> None:
    (first,) = await near_lead.run("printf '%0190d ' 0; printf '%s' \"$KEY\"; printf '%0300d' 0")
    offset, pages = 0, ""
    while True:
        page = await near_lead.call("read_log", id=first, offset=offset, limit=200)
        body, _, where = page.rpartition("\n[")
        pages += f"{body}|"
        if "offset=" not in where:
            break
        offset = int(where.rstrip("]").partition("offset=")[2])
    assert "api03" not in pages
    assert MARK in pages


async def test_the_end_of_a_log_begins_with_no_part_of_a_secret(near_lead: Lead) -> None:
    after = "and more " * 21 + "end"  # a page of 200 bytes begins within the key
    (first,) = await near_lead.run(f'echo "a long line: $KEY {after}"')
    text = await near_lead.call("read_log", id=first, tail=1, limit=200)
    assert text.endswith("and more end\n[end]")
    assert "Q7" not in text


async def test_the_end_of_one_huge_line_begins_with_no_part_of_a_secret(near_lead: Lead) -> None:
    pad = "head -c {} /dev/zero | tr '\\0' x"
    long = "sk-ant-$(head -c 3000 /dev/zero | tr '\\0' K)"
    for limit, fields in ((4_000, ("verify_output", "error")), (OUTPUT_LIMIT, ("output",))):
        noise = f"printf '%s ' {long}; {pad.format(limit - 1700)}"
        (agent,) = await near_lead.run(f"{noise}; ({noise}) >&2; exit {int(fields[0] != 'output')}", verify=noise)
        (verified,) = await near_lead.run("true", verify=f"{noise}; false")
        for id_ in (agent, verified):
            result = await near_lead.call("get_result", id=id_)
            assert "KKKK" not in str(result), fields
            assert "xxxx" in str(result)


async def test_an_agents_token_is_shown_nowhere_and_recorded_in_no_event(
    lead: Lead, repository: Path, home: Home, tmp_path: Path
) -> None:
    leaks = (
        f'printf %s "$FORKJOIN_TOKEN" > {tmp_path}/token; echo "$FORKJOIN_TOKEN" > leaked.txt',
        'git add leaked.txt; git commit -q -m "by $FORKJOIN_TOKEN"; echo "said: $FORKJOIN_TOKEN"',
    )
    (first,) = await lead.run("; ".join(leaks), verify='echo "verify: $FORKJOIN_TOKEN"')
    token = (tmp_path / "token").read_text()
    answers = [
        await lead.call("list_agents"),
        await lead.call("get_result", id=first, detail="full"),
        await lead.call("read_log", id=first),
        await lead.call("read_log", id=first, raw=True),
        await lead.call("read_log", id=first, raw=True, tail=1),
        await lead.call("read_diff", id=first),
        await lead.call("merge_worktree", ids=[first], verify="! cat leaked.txt"),
    ]
    shown = [json.dumps(answer) for answer in answers] + [forkjoin(repository, "logs", first, "--raw").stdout]
    assert [token in text for text in shown] == [False] * len(shown)
    assert [MARK in text for text in shown] == [True] * len(shown)
    assert token not in home.log.read_text()
    with sqlite3.connect(home.records) as records:
        for table in ("event", "agent", "landing"):
            assert token not in str(records.execute(f"SELECT * FROM {table}").fetchall()), table
    records.close()


async def test_a_page_that_begins_within_a_token_shows_no_part_of_it(near_lead: Lead) -> None:
    (first,) = await near_lead.run('echo "before $FORKJOIN_TOKEN after"; echo "$FORKJOIN_TOKEN" > leaked.txt')
    for tool, arguments in (("read_log", {"raw": True}), ("read_diff", {"path": "leaked.txt"})):
        whole = await near_lead.call(tool, id=first, **arguments)
        begin = whole.index(MARK)
        for offset in (begin + 1, begin + 5, begin + 20):
            page = await near_lead.call(tool, id=first, offset=offset, **arguments)
            assert page.startswith(MARK), page
            assert page.removeprefix(MARK).split()[0] in ("after", "[end]"), page


@pytest.mark.parametrize("tool", ["read_log", "read_diff"])
@pytest.mark.parametrize("what", ["PEM", "bearer"])
async def test_a_secret_longer_than_a_page_is_on_no_page(near_lead: Lead, tool: str, what: str) -> None:
    body = "Q7q8" * 12
    key = f"Bearer {body * 20}"
    if what == "PEM":
        key = "\n".join((f"-----BEGIN {'PRIVATE'} KEY-----", *[body] * 30, f"-----END {'PRIVATE'} KEY-----"))
    (first,) = await near_lead.run(f"echo '{'a line ' * 20}\n{key}\n{'and more ' * 30}' | tee leaked.txt")
    offset, pages = 0, ""
    while True:
        page = await near_lead.call(tool, id=first, offset=offset, limit=200)
        pages += page
        if "offset=" not in page:
            break
        offset = int(page.rstrip("]").rpartition("offset=")[2])
    assert "Q7q8" not in pages
    assert "and more and more" in pages
