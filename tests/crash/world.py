"""A world: a home of forkjoin's own, two repositories with a person in each, leads, and all that was asked of it."""

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

#: How long what must come may take; a machine may be busy.
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
    """What there is, and what was done; `random` decides what is done next."""

    def __init__(self, folder: Path, seed: str) -> None:
        self.folder = folder
        self.seed = seed
        self.random = random.Random(seed)
        self.home = folder / "home"
        self.home.mkdir(mode=0o700, parents=True)
        (self.home / "config.toml").write_text(_CONFIG)
        self.environment = environment(folder, self.home)
        self.people = [Person(folder / name, self.environment) for name in ("left", "right")]
        self.told = folder / "told"  #: what agents' scripts said
        self.told.touch()
        self.fell = folder / "fell"  #: daemons that killed themselves at a fail point
        self.fell.touch()
        self.works: dict[str, Work] = {}
        self.leads = [self._open(f"lead-{n}", self.people[n % 2]) for n in range(3)]
        self.gone: list[Lead] = []  #: relays that were killed
        self.commands: list[subprocess.Popen[bytes]] = []  #: what a person has typed, and has not ended
        self.daemons: list[subprocess.Popen[bytes]] = []  #: those that were started to fall
        self.hurt: dict[str, set[str]] = {}  #: which processes of an agent were killed, by its id
        self.stopped: set[str] = set()  #: ids of agents that somebody has asked to stop
        self.messages: dict[str, tuple[str, Call]] = {}  #: whom each was sent to, by its token, and the call
        self.let_go: set[str] = set()  #: those of them that never end by themselves
        self.counts: Counter[str] = Counter()
        self._taken: Counter[str] = Counter()
        self._trace = (folder / "trace").open("a", buffering=1)
        self.note(f"seed {seed}")
        self.until(self.answers, "a daemon answered")

    def note(self, what: str) -> None:
        """Write down what is done, for whoever has to find out why something went wrong."""
        self._trace.write(f"{time.time() % 10000:9.3f} {what}\n")

    # -- leads and their agents

    def _open(self, name: str, person: Person) -> Lead:
        return Lead(name, person.folder, self.environment, self.folder / "relays")

    def reopen(self, lead: Lead) -> Lead:
        """Another relay in the name of a lead whose own was killed."""
        again = self._open(lead.name, self.person_at(lead.where))
        self.gone.append(lead)
        self.leads[self.leads.index(lead)] = again
        return again

    def a_lead(self) -> Lead:
        """One of the leads, with a relay that was not killed."""
        lead = self.random.choice(self.leads)
        return self.reopen(lead) if lead.killed else lead

    def person_at(self, where: Path) -> Person:
        return next(person for person in self.people if person.folder == where)

    def new_work(self) -> Work:
        kind = self.random.choice(list(KINDS))
        work = make_work(f"t{len(self.works) + 1}", kind, str(self.told))
        self.works[work.token] = work
        return work

    def every_call(self) -> Iterator[tuple[Lead, Call]]:
        for lead in (*self.leads, *self.gone):
            for call in list(lead.calls.values()):
                yield lead, call

    def known(self, where: Path) -> list[str]:
        """Ids that leads in this repository have been told."""
        found: list[str] = []
        for lead, call in self.every_call():
            if lead.where == where and call.tool == "spawn_agents" and call.content:
                found += [agent["id"] for agent in call.content["agents"]]
        return found

    def listening(self, where: Path) -> list[tuple[str, str]]:
        """Ids and tokens of those that are told more."""
        calls = [call for lead, call in self.every_call() if lead.where == where and call.tokens and call.content]
        spawned = [
            (one["id"], token) for call in calls for one, token in zip(call.content["agents"], call.tokens, strict=True)
        ]
        return [(agent, token) for agent, token in spawned if self.works[token].expected.listens]

    # -- what is

    def rows(self, query: str, *values: object) -> list[dict[str, Any]]:
        """What the records say, read beside the daemon."""
        with closing(sqlite3.connect(f"file:{self.home}/records.sqlite?mode=ro", uri=True, timeout=GIVE_UP_S)) as found:
            found.row_factory = sqlite3.Row
            return [dict(row) for row in found.execute(query, values)]

    def said(self) -> dict[str, list[str]]:
        """What scripts have said, by their tokens."""
        found: dict[str, list[str]] = {token: [] for token in self.works}
        for line in self.told.read_text().splitlines():
            word, token, _ = line.split()
            found[token].append(word)
        return found

    def until(self, is_so: Callable[[], object], what: str, tell: Callable[[], object] = str) -> None:
        """Return once it is so; `tell` says what there is instead.

        Raises:
            WrongError: That took too long.
        """
        give_up = time.monotonic() + GIVE_UP_S
        while not is_so():
            if time.monotonic() > give_up:
                raise WrongError(f"it never came that {what} {tell()}")
            time.sleep(0.02)

    def answers(self) -> bool:
        """Whether a daemon answers."""
        folder = os.open(self.home, os.O_RDONLY)  # a socket's path may have 108 bytes
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                return connection.connect_ex(f"/proc/self/fd/{folder}/daemon.sock") == 0
        finally:
            os.close(folder)

    def take_counts(self) -> Counter[str]:
        """What was counted since this was last asked."""
        there = {
            "agents": len(self.works),
            "messages": len({word for words in self.said().values() for word in words} & self.messages.keys()),
            "merged": self.rows("SELECT count(*) AS n FROM agent WHERE merge = 'merged'")[0]["n"],
            "fallen": len(self.fell.read_text().splitlines()),
        }
        counts = self.counts + Counter(there) - self._taken
        self._taken = Counter(there)
        self.counts.clear()
        return counts

    # -- its end

    def end(self) -> None:
        """Leave nothing running; the folder stays."""
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
