"""A process that carries out a landing, as a daemon does: run by tests that kill it on the way."""

import os
import sys

import anyio
from forkjoin.landing.land import Lander
from forkjoin.main import open_loop
from forkjoin.paths import find_home


async def land(number: int) -> None:
    async with open_loop(find_home()) as loop:
        environment = {"PATH": os.environ["PATH"], "LANDER": str(os.getpid())}
        await Lander(loop.rooms).land(await loop.store.landing(number), environment)


anyio.run(land, int(sys.argv[1]))
