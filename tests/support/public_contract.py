"""The public contract of the installed forkjoin, as its users see it. `contract.json` records the one of version 0.1.

`python -m support.public_contract --write` writes that file, in a checkout of the version that the file describes. To
work with every version, this module only uses tools over MCP, commands, and forkjoin's entry point.

A contract has sections, a section has parts, and a part has names with words: types, `=value`, `required`, `always`.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn

import anyio
from mcp import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from support.contract_requests import AGENT_REQUESTS, SPECS
from support.field_names import fields_of_schema, fields_of_value

Contract = dict[str, dict[str, dict[str, str]]]

ROOT = Path(__file__).parents[2]
FILE = ROOT / "tests" / "contract.json"

#: The command that starts forkjoin, as `forkjoin install` registers it.
FORKJOIN = (sys.executable, "-P", "-E", "-m", "forkjoin")

CONFIG = """
default_agent = "sh"
[limits]
max_load = 1000
stop_grace_s = 1
[agents.sh]
kind = "command"
command = ["sh"]
[agents.model]
kind = "claude"
command = ["sh", "{model}"]
"""

#: An agent's program that prints one line of each kind that claude prints.
MODEL = """
read task
echo '{"type": "system", "subtype": "init", "session_id": "x", "model": "claude-opus-4-8"}'
echo '{"type": "assistant", "message": {"content": [{"type": "text", "text": "I look."}]}}'
echo '{"type": "assistant", "message": {"content": [{"type": "tool_use", "name": "Bash", "input": {"command": "ls"}}]}}'
echo 'no json'
echo '{"type": "result", "subtype": "success", "is_error": false, "result": "Done.", "total_cost_usd": 0.25}'
"""

#: A forkjoin.toml in which each command writes its environment to a file.
FORKJOIN_TOML = """
setup = "env > {seen}/setup"
setup_minutes = 1
teardown = "env > {seen}/teardown"
teardown_minutes = 1
verify = "env > {seen}/${{FORKJOIN_AGENT:+verify}}${{FORKJOIN_LANDING:+merge}}"
ports = 1
[share]
shared = "link"
[environment]
PORT = "$FORKJOIN_PORT_BASE"
"""

#: Commands that only read, run after three agents have ended; then commands that change something, in this order. Exit
#: codes and fields of the JSON output are part of the contract.
READERS = (
    *("ps", "result model", "wait fails", "status", "budget"),
    *("doctor", "daemon status", "ps --no-such-option"),
)
WRITERS = ("merge first", "undo", "stop fails", "rm fails", "spawn --name again true", "message first true")

#: Prints what `look_within` returns. A process of its own, because it changes typer.
_WITHIN = (
    f"import json, sys; sys.path.insert(0, {str(ROOT / 'tests')!r})"
    """
from support.public_contract import look_within as look; print(json.dumps(look()))"""
)

#: For each command, the part of its outcome that varies between machines or runs.
_VARYING = {"doctor": "exit code", "spawn --name again true": "agents[].queue_position"}


def observe(folder: Path) -> Contract:
    """Return the contract of the installed forkjoin. The folder must be empty."""
    sandbox = Sandbox(folder)
    with subprocess.Popen([*FORKJOIN[:3], "-c", _WITHIN], stdout=subprocess.PIPE, env=sandbox.variables) as within:
        try:
            sandbox.run("trust --yes")
            found = anyio.run(sandbox.lead) | sandbox.command()
        finally:
            sandbox.run("daemon stop --agents")
        found |= json.loads(within.communicate()[0])
    found["variables"]["the code"] = dict.fromkeys(_named_in_code(), "")
    found["plugin"] = {"files": dict.fromkeys(_plugin(), "")}
    return found


class Sandbox:
    """A user, a home of forkjoin and a repository in which the contract is observed."""

    def __init__(self, folder: Path) -> None:
        removed = ("GIT_", "CLAUDE", "FORKJOIN_", "XDG_", "ANTHROPIC_")
        self.repository = folder / "repo"
        self.seen = folder / "seen"  #: the files that agents and commands of forkjoin.toml write
        for made in (self.repository / "shared", self.seen, folder / "home"):
            made.mkdir(parents=True, mode=0o700)
        self.variables = {
            **{name: value for name, value in os.environ.items() if not name.startswith(removed)},
            "HOME": str(folder),
            "FORKJOIN_HOME": str(folder / "home"),
            "GIT_CONFIG_NOSYSTEM": "1",
        }
        (folder / ".gitconfig").write_text(
            "[user]\nname = Test\nemail = test@example.com\n[init]\ndefaultBranch = main\n"
        )
        (folder / "model.sh").write_text(MODEL)
        (folder / "home" / "config.toml").write_text(CONFIG.format(model=folder / "model.sh"))
        (self.repository / "forkjoin.toml").write_text(FORKJOIN_TOML.format(seen=self.seen))
        (self.repository / ".gitignore").write_text("shared\n")
        for command in ("init -q", "add .", "commit -q -m first"):
            self.git(command)

    def git(self, command: str) -> str:
        argv = ["git", *command.split()]
        return subprocess.run(
            argv, cwd=self.repository, env=self.variables, capture_output=True, text=True, check=True
        ).stdout

    def run(self, command: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [*FORKJOIN, *command.split()],
            cwd=self.repository,
            env=self.variables,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    async def lead(self) -> Contract:
        """Return what an MCP client sees. Run three agents to their ends."""
        relay = StdioServerParameters(
            command=FORKJOIN[0], args=[*FORKJOIN[1:], "mcp"], env=self.variables, cwd=str(self.repository)
        )
        async with Client(stdio_client(relay)) as client:
            found = await _offered(client)
            agents = [{"name": "first", "task": self._task()}, {"name": "fails", "task": "exit 1"}]
            agents.append({"name": "model", "task": "x", "agent": "model"})
            await client.call_tool("spawn_agents", {"agents": agents})
            accepted: dict[str, str] = {}
            for name, spec in SPECS.items():
                answer = await client.call_tool("spawn_agents", {"agents": [spec], "dry_run": True})
                accepted[name] = f"refused: {answer.content}" if answer.is_error else "accepted"
            found["parameters"]["spawn_agents"] |= await _find_unlisted_fields(client, found["parameters"])
            await client.call_tool("wait_agents", {"ids": ["first", "fails", "model"], "timeout_s": 100})
            log = str((await client.call_tool("read_log", {"id": "model"})).content)
        kinds = re.findall(r"(?<!\d)\d\d:\d\d:\d\d (\w+): ", log)
        return found | {"specs": {"spawn_agents": accepted}, "log": {"model": dict.fromkeys(kinds, "")}}

    def command(self) -> Contract:
        """Return the outcomes of commands, and the agents' variables and tools.

        `lead` must have run before.
        """
        with ThreadPoolExecutor(3) as threads:
            outcomes = dict(zip(READERS, threads.map(self._outcome, READERS), strict=True))
        names = dict[str, str]()
        for command in WRITERS:
            outcomes[command] = self._outcome(command)
            if command == "merge first":
                names["trailer"] = self.git("log -1 --format=%(trailers:key=Forkjoin-Agent,separator=)")
                names["branch"] = self.git("branch --list *first --format=%(refname:short)")
        return {
            "exit codes": {command: {"code": code} for command, (code, _) in outcomes.items() if code},
            "json": {command: shape for command, (_, shape) in outcomes.items() if shape},
            "names": {"first": {name: f"={'_'.join(value.split())}" for name, value in names.items()}},
            "variables": {
                of: dict.fromkeys(re.findall(r"^(FORKJOIN_\w+)=", self._seen(of), re.MULTILINE), "")
                for of in ("program", "setup", "verify", "merge", "teardown")
            },
            **{f"an agent's {section}": found for section, found in _tools(self._agents_tools()).items()},
        }

    def _outcome(self, command: str) -> tuple[str, dict[str, str]]:
        """Run a command.

        Return its exit code and the fields of its JSON, without the part that varies.
        """
        done = self.run(f"{command} --json")
        varying = _VARYING.get(command)
        shape = fields_of_value(json.loads(done.stdout or "null"))
        shape.pop(varying or "", None)
        return "" if varying == "exit code" else f"={done.returncode}", shape

    def _seen(self, name: str) -> str:
        """Return the content of a file in `seen`, or '' if there is none."""
        file = self.seen / name
        return file.read_text() if file.exists() else ""

    def _agents_tools(self) -> list[dict[str, Any]]:
        """Return the definitions of the tools that an agent's relay offers."""
        answers = map(json.loads, self._seen("tools").splitlines())
        return [tool for answer in answers if answer.get("id") == 1 for tool in answer["result"]["tools"]]

    def _task(self) -> str:
        """Return a task that records the agent's variables and tools, and changes a file."""
        (self.seen.parent / "asked").write_text(
            "".join(json.dumps({"jsonrpc": "2.0", **one}) + "\n" for one in AGENT_REQUESTS)
        )
        new = f"{self.seen}/new"  # renamed when complete: a message lets the agent run again while the files are read
        answered = f"until grep -q '\"id\": *1' {new}; do sleep 0.05; done"  # stdin stays open until then
        relay = (
            f"(cat {self.seen.parent}/asked; {answered}) | {' '.join(FORKJOIN)} mcp > {new}; mv {new} {self.seen}/tools"
        )
        return f"env > {new}; mv {new} {self.seen}/program; {relay}; echo more >> work.txt"


async def _offered(client: Client) -> Contract:
    tools = [tool.model_dump(by_alias=True) for tool in (await client.list_tools()).tools]
    resources = (await client.list_resources()).resources
    templates = (await client.list_resource_templates()).resource_templates
    prompts = (await client.list_prompts()).prompts
    types = {str(one.uri): one.mime_type for one in resources} | {one.uri_template: one.mime_type for one in templates}
    return _tools(tools) | {
        "resources": {uri: {"MIME type": f"={kind}"} for uri, kind in types.items()},
        "prompts": {
            prompt.name: {one.name: "required" if one.required else "" for one in prompt.arguments or []}
            for prompt in prompts
        },
    }


async def _find_unlisted_fields(client: Client, listed: dict[str, dict[str, str]]) -> dict[str, str]:
    """Return the parameters of spawn_agents that only spawn_agent's schema lists.

    Each field of each of SPECS is given in a call, once in the entry of `agents`, and once next to `agents`.
    """

    async def accepts(entry: dict[str, Any], **shared: Any) -> bool:
        answer = await client.call_tool("spawn_agents", {"agents": [entry], "dry_run": True, **shared})
        return not answer.is_error

    assert not await accepts({"task": "true", "no_such_field": "x"})
    assert not await accepts({"task": "true"}, no_such_field="x")
    found: dict[str, str] = {}
    for spec in SPECS.values():
        for name, value in spec.items():
            rest = {other: part for other, part in spec.items() if other != name}
            places = {"agents[].": await accepts(spec), "": await accepts(rest, **{name: value})}
            for place in (place for place, accepted in places.items() if accepted):
                for field, words in listed["spawn_agent"].items():
                    if field.partition("[")[0] == name and place + field not in listed["spawn_agents"]:
                        found[place + field] = " ".join(word for word in words.split() if word != "required")
    return found


def _tools(tools: Sequence[dict[str, Any]]) -> Contract:
    """Return the annotations, parameters and result fields of each tool."""
    return {
        "tools": {
            tool["name"]: {
                hint: f"={json.dumps(value)}" for hint, value in tool["annotations"].items() if value is not None
            }
            for tool in tools
        },
        "parameters": {tool["name"]: fields_of_schema(tool["inputSchema"], "required") for tool in tools},
        "results": {
            tool["name"]: fields_of_schema(tool["outputSchema"], "always") if tool.get("outputSchema") else {}
            for tool in tools
        },
    }


def _named_in_code() -> set[str]:
    """Return the names of the FORKJOIN_* variables that occur in the source code."""
    files = (file for folder in ("server", "tools") for file in (ROOT / folder).rglob("*.py"))
    return {name for file in files for name in re.findall(r"\bFORKJOIN_[A-Z_]*[A-Z]\b", file.read_text())}


def _plugin() -> Iterator[str]:
    return (str(file.relative_to(ROOT / "plugin")) for file in (ROOT / "plugin").rglob("*") if file.is_file())


def look_within() -> Contract:
    """Return the sections that import forkjoin: the command line and the settings."""
    import typer
    import typer.main
    from forkjoin.__main__ import main

    make, made = typer.main.get_command, list[Any]()

    def keep(typer_instance: typer.Typer) -> NoReturn:
        made.append(make(typer_instance))
        sys.exit()

    typer.main.get_command = keep
    sys.argv[1:] = ["--help"]
    try:
        main()
    except SystemExit:
        return {"commands": dict(_commands("forkjoin", made[0])), "settings": _settings()}
    raise AssertionError("forkjoin has no command line")


def _commands(name: str, command: Any) -> Iterator[tuple[str, dict[str, str]]]:
    found: dict[str, str] = {}
    place = 0
    for one in command.params:
        words = ["flag" if getattr(one, "is_flag", False) else "value"]
        words += ["required"] * one.required + ["many"] * (one.nargs == -1 or one.multiple)
        if one.param_type_name == "argument":
            place += 1
        spelled = [f"argument {place}"] if one.param_type_name == "argument" else [*one.opts, *one.secondary_opts]
        found |= dict.fromkeys(spelled, " ".join(words))
    yield name, found
    for inner, of_inner in getattr(command, "commands", {}).items():
        yield from _commands(f"{name} {inner}", of_inner)


def _settings() -> dict[str, dict[str, str]]:
    """Return the keys of config.toml and forkjoin.toml.

    Their pydantic models are found in any module by keys that each model must have.
    """
    import importlib
    import pkgutil

    import forkjoin
    from pydantic import BaseModel

    for module in pkgutil.walk_packages(forkjoin.__path__, "forkjoin."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)

    def find(*keys: str) -> dict[str, str]:
        pending, found = [BaseModel], list[type[BaseModel]]()
        while pending:
            below = pending.pop().__subclasses__()
            pending += below
            found += [
                one for one in below if {*keys} <= {field.alias or name for name, field in one.model_fields.items()}
            ]
        (model,) = {one for one in found if one.__module__.startswith("forkjoin.")}
        return fields_of_schema(model.model_json_schema(), "default")

    return {"config.toml": find("default_agent", "agents"), "forkjoin.toml": find("setup", "teardown")}


def main() -> None:
    if sys.argv[1:] != ["--write"]:
        sys.exit("usage: python -m support.public_contract --write")
    with TemporaryDirectory() as folder:
        found = observe(Path(folder))
    FILE.write_text(json.dumps(found, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
