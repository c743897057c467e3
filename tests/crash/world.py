"""A world of the crash test: a home of forkjoin, two repositories with a person in each, leads, and their calls."""

import os
import random
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from crash.lead import Call, Lead
from crash.person import Person, environment
from crash.work import KINDS, Work, make_work

#: Seconds until the test gives up waiting for an event. The limit is generous, because the machine may be busy.
GIVE_UP_S = 120.0

_CONFIG = """
default_agent = "sh"
[limits]
max_load = 1000
max_running = 5
stop_grace_s = 0.2
rest_s = 0.2
[agents.sh]
kind = "command"
command = ["sh"]
"""


class WrongError(AssertionError):
    """An invariant does not hold."""


class World:
    """The participants and the history of a world. `random` decides which operation is next."""

    def __init__(self, folder: Path, seed: str) -> None:
        self.folder = folder
        self.seed = seed
        self.random = random.Random(seed)
        self.home = folder / "home"
        self.home.mkdir(mode=0o700, parents=True)
        (self.home / "config.toml").write_text(_CONFIG)
        self.environment = environment(folder, self.home)
        self.people = [Person(folder / name, self.environment) for name in ("left", "right")]
        self.log = folder / "log"  #: the words that agents' scripts log
        self.log.touch()
        self.fell = folder / "fell"  #: a line for each daemon that killed itself at a fail point
        self.fell.touch()
        self.works: dict[str, Work] = {}
        self.leads = [self._open(f"lead-{n}", self.people[n % 2]) for n in range(3)]
        self.gone: list[Lead] = []  #: leads whose relays were killed
        self.commands: list[subprocess.Popen[bytes]] = []  #: a person's commands
        self.daemons: list[subprocess.Popen[bytes]] = []  #: daemons with fail points
        self.hurt: dict[str, set[str]] = {}  #: by an agent's id, its processes that were killed
        self.stopped: set[str] = set()  #: ids of agents that a lead or a person tried to stop
        self.messages: dict[str, tuple[str, Call]] = {}  #: by a message's word, the receiver's token and the call
        self.let_go: set[str] = set()  #: ids of endless agents that were stopped at a round's end
        self.counts: Counter[str] = Counter()
        self._taken: Counter[str] = Counter()
        self._trace = (folder / "trace").open("a", buffering=1)
        self.note(f"seed {seed}")
        self.until(self.answers, "a daemon to answer")

    def note(self, line: str) -> None:
        """Write a line into the trace, which explains failures."""
        self._trace.write(f"{time.time() % 10000:9.3f} {line}\n")

    # -- leads and their agents

    def _open(self, name: str, person: Person) -> Lead:
        return Lead(name, person.folder, self.environment, self.folder / "relays")

    def reopen(self, lead: Lead) -> Lead:
        """Start another relay for a lead whose relay was killed.

        Return the lead that takes its place.
        """
        again = self._open(lead.name, self.person_at(lead.where))
        self.gone.append(lead)
        self.leads[self.leads.index(lead)] = again
        return again

    def a_lead(self) -> Lead:
        """Return a random lead. If its relay was killed, start another one first."""
        lead = self.random.choice(self.leads)
        return self.reopen(lead) if lead.killed else lead

    def person_at(self, where: Path) -> Person:
        return next(person for person in self.people if person.folder == where)

    def new_work(self) -> Work:
        kind = self.random.choice(list(KINDS))
        work = make_work(f"t{len(self.works) + 1}", kind, str(self.log))
        self.works[work.token] = work
        return work

    def every_call(self) -> Iterator[tuple[Lead, Call]]:
        for lead in (*self.leads, *self.gone):
            for call in list(lead.calls.values()):
                yield lead, call

    def known(self, where: Path) -> list[str]:
        """Return the ids of agents that leads in this repository have received."""
        found: list[str] = []
        for lead, call in self.every_call():
            if lead.where == where and call.tool == "spawn_agents" and call.content:
                found += [agent["id"] for agent in call.content["agents"]]
        return found

    def listening(self, where: Path) -> list[tuple[str, str]]:
        """Return the ids and tokens of this repository's agents that may be sent messages."""
        calls = [call for lead, call in self.every_call() if lead.where == where and call.tokens and call.content]
        spawned = [
            (agent["id"], token)
            for call in calls
            for agent, token in zip(call.content["agents"], call.tokens, strict=True)
        ]
        return [(agent, token) for agent, token in spawned if self.works[token].expected.listens]

    # -- the state of the world

    def rows(self, query: str, *values: object) -> list[dict[str, Any]]:
        """Return the rows of a query on the daemon's database."""
        with closing(sqlite3.connect(f"file:{self.home}/records.sqlite?mode=ro", uri=True, timeout=GIVE_UP_S)) as found:
            found.row_factory = sqlite3.Row
            return [dict(row) for row in found.execute(query, values)]

    def said(self) -> dict[str, list[str]]:
        """Return the words that each script has logged, by token."""
        found: dict[str, list[str]] = {token: [] for token in self.works}
        for line in self.log.read_text().splitlines():
            word, token, _ = line.split()
            found[token].append(word)
        return found

    def until(self, is_so: Callable[[], object], event: str, describe: Callable[[], object] = str) -> None:
        """Poll the function until it returns a true value.

        `event` is the awaited event in words, and `describe` returns the state of the world for the error.

        Raises:
            WrongError: That took too long.
        """
        give_up = time.monotonic() + GIVE_UP_S
        while not is_so():
            if time.monotonic() > give_up:
                raise WrongError(f"waited {GIVE_UP_S:.0f} s for {event} {describe()}")
            time.sleep(0.02)

    def answers(self) -> bool:
        """Return whether a daemon accepts connections."""
        folder = os.open(self.home, os.O_RDONLY)  # a socket's path may have at most 108 bytes
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                return connection.connect_ex(f"/proc/self/fd/{folder}/daemon.sock") == 0
        finally:
            os.close(folder)

    def take_counts(self) -> Counter[str]:
        """Return the counts since the last call."""
        totals = {
            "agents": len(self.works),
            "messages": len({word for words in self.said().values() for word in words} & self.messages.keys()),
            "merged": self.rows("SELECT count(*) AS n FROM agent WHERE merge = 'merged'")[0]["n"],
            "fallen": len(self.fell.read_text().splitlines()),
        }
        counts = self.counts + Counter(totals) - self._taken
        self._taken = Counter(totals)
        self.counts.clear()
        return counts

    # -- the end of the world

    def end(self) -> None:
        """End all processes of the world. Its folder is kept."""
        for lead in self.leads:
            lead.kill()
        argv = [sys.executable, "-m", "forkjoin", "daemon", "stop", "--agents"]
        subprocess.run(argv, cwd=self.folder, env=self.environment, check=False, capture_output=True, timeout=GIVE_UP_S)
        for started in (*self.commands, *self.daemons):
            started.kill()
            started.wait()
        self._trace.close()

    def remove(self) -> None:
        shutil.rmtree(self.folder)
