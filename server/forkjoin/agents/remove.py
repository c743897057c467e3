"""Removing: an agent's worktree and branch go; what it did stays reachable unless it is merged.

Whether it is merged git is asked, not the record: a target may have been set back since, or somebody merged by hand.
Everything is looked at before the first thing goes, and what is decided then is recorded. A removal that was cut off is
looked at again, unless files had begun to go; then what came since is kept, and the rest goes.
"""

import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import anyio
from anyio import to_thread

from forkjoin.agents.attach import end_person_program
from forkjoin.agents.setup_and_teardown import tear_down
from forkjoin.core.error import CallerError, GitError
from forkjoin.core.event import Noted
from forkjoin.core.model import FINAL, Agent, Merge, Removal
from forkjoin.core.regular_file import is_gone
from forkjoin.git import folder_archive, kept_refs
from forkjoin.git.file_names import printable_list
from forkjoin.git.refs import describe_symbolic_target, find_symbolic_target, find_tip, resolve_commit
from forkjoin.git.unsaved import unsaved_work
from forkjoin.git.unsaved.unsaved_work import UnsavedWork
from forkjoin.git.worktrees import worktree, worktree_folder
from forkjoin.git.worktrees.autocommit import Left, keep_left
from forkjoin.git.worktrees.checkout import find_checkout
from forkjoin.git.worktrees.hidden_files import find_unseen
from forkjoin.services import Services
from forkjoin.workspace import config_tampering
from forkjoin.workspace.agent_work import commit_loose, find_last, is_at

log = logging.getLogger(__name__)


class Removed(NamedTuple):
    """What came of a removal: where the work of each that was unmerged is kept, as a ref; and what went wrong."""

    kept_as: dict[int, str | None]
    warnings: list[str]


async def remove(
    services: Services, agents: Sequence[Agent], *, discard_unmerged: bool, environment: Mapping[str, str] | None
) -> Removed:
    """Take away the agents' worktrees and branches, after their teardown: all, or none where one is refused.

    Args:
        environment: What a teardown runs in where that of an agent's own lead is gone.
    """
    async with _alone(services, agents[0].project):
        return await _remove(services, agents, Removal.DISCARD if discard_unmerged else Removal.MERGED, environment)


async def finish_removals(services: Services) -> None:
    """Finish the removals that the end of a daemon cut off, or refuse them."""
    for agent in await services.store.agents.half_removed():
        try:
            async with _alone(services, agent.project):
                (now,) = await services.store.agents.get_all([agent.number])  # somebody may have asked for it again
                if now.removing and now.timing.removed is None:
                    told = await _finish(services, now)
                    log.warning("%s: %s", agent.id, told)
                    await services.store.events.add(agent, [(Noted(told), -1)])
        except Exception:  # a boundary: one agent's trouble is that agent's alone
            log.exception("%s could not be removed; call remove_worktrees again", agent.label)


async def _finish(services: Services, agent: Agent) -> str:
    """Finish a removal, unless somebody has gone on with the agent's work. Return how that went."""
    common_dir = (await services.store.projects.get(agent.project)).common_dir
    how = Removal.MERGED if await _is_forgotten(common_dir, agent) else agent.removing
    try:
        removed = await _remove(services, [agent], how, services.environments.find_in_project(agent.project))
    except CallerError as error:
        return f"its removal was cut off, and is not finished: {error}"
    kept_as = removed.kept_as[agent.number]
    kept_words = f"; its work is kept as {kept_as}" if kept_as else ""
    return " ".join([f"its removal was cut off, and is done now{kept_words}.", *removed.warnings])


async def _remove(
    services: Services, agents: Sequence[Agent], how: Removal, environment: Mapping[str, str] | None
) -> Removed:
    """Remove these agents, none of which anybody else removes meanwhile."""
    common_dir = (await services.store.projects.get(agents[0].project)).common_dir
    agents = await services.store.agents.get_all(agent.number for agent in agents)
    left = [agent for agent in agents if agent.timing.removed is None]
    begun = [agent for agent in left if agent.removing and await _has_begun(common_dir, agent)]
    whole = [agent for agent in left if agent not in begun]
    _check_free(services, begun)
    try:
        warnings = await _look(services, common_dir, whole, how, environment)
    except CallerError:
        if stay := [agent for agent in whole if agent.removing]:
            await services.store.agents.update(*stay, removing=Removal.NONE)
        raise
    warnings += [note for agent in begun for note in await _keep_late(common_dir, agent)]
    return Removed(await _take_all_away(services, common_dir, agents), warnings)


async def _look(
    services: Services, common_dir: str, whole: Sequence[Agent], how: Removal, environment: Mapping[str, str] | None
) -> list[str]:
    """Look at all that would go, keep what is nowhere else, and record that it goes. Return warnings."""
    _check_free(services, whole)
    discard = how is Removal.DISCARD
    made = [agent for agent in whole if agent.worktree.prepared]
    forgotten = [agent for agent in made if await _is_forgotten(common_dir, agent)]
    known = [agent for agent in made if agent not in forgotten]
    unmerged = [agent for agent in known if await _is_unmerged(services, common_dir, agent)]
    if not discard:
        _check_merged(unmerged, forgotten)
        await _find_unsaved(common_dir, known, {}, discard=False)
    for agent in made:
        await end_person_program(services, agent)
    symbolic = [note for agent in known if (note := await _note_symbolic(common_dir, agent))]
    lefts = {agent.number: await _commit_loose(services, common_dir, agent) for agent in known}
    if late := [agent for agent in known if agent.removing and lefts[agent.number].loose and not discard]:
        raise _refuse(late[0], "files came into its worktree after its removal was cut off, and are on its branch now")
    standing = [agent for agent in known if not agent.removing]  # the others' teardown has been run
    warnings = [*symbolic, *await tear_down(services, standing, environment)]
    lefts |= await _check_again(services, common_dir, whole, lefts)
    strays = {agent.number: await _find_strays(services, common_dir, agent, lefts) for agent in known}
    unsaved = await _find_unsaved(common_dir, known, strays, discard=discard)
    warnings += [await _keep_unsaved(common_dir, agent, found) for agent, found in unsaved]
    for agent in known:
        await _keep_left(common_dir, agent, lefts[agent.number], discard=discard)
    _check_free(services, whole)  # who comes to one after this sees that it is being removed
    _check_free(services, await services.store.lifecycle.begin_removal(whole, how))
    return warnings


async def _has_begun(common_dir: str, agent: Agent) -> bool:
    """Whether files of the agent's worktree have begun to go."""
    return await to_thread.run_sync(worktree.going_since, common_dir, Path(agent.worktree.path)) is not None


async def _keep_late(common_dir: str, agent: Agent) -> list[str]:
    """Keep what came into a worktree since its files began to go. Return a warning if something did."""
    path = Path(agent.worktree.path)
    since = await to_thread.run_sync(worktree.going_since, common_dir, path)
    late = await to_thread.run_sync(unsaved_work.find_late_files, common_dir, path, since or 0)
    return [await _keep_unsaved(common_dir, agent, late)] if late else []


def _alone(services: Services, project: int) -> anyio.Lock:
    """One removal at a time in a project."""
    return services.removal_locks.setdefault(project, anyio.Lock())


def _check_free(services: Services, agents: Sequence[Agent]) -> None:
    """See that none of these is at work, on its way to a target, or with a person."""
    if live := [agent.label for agent in agents if agent.state not in FINAL]:
        raise CallerError(f"Still at work: {', '.join(live)}. Call stop_agents first; nothing was removed.")
    if landing := [agent.label for agent in agents if agent.merge is Merge.QUEUED]:
        raise CallerError(f"Being merged: {', '.join(landing)}. Wait for merge_worktree; nothing was removed.")
    if visited := [agent.label for agent in agents if agent.number in services.attached]:
        raise CallerError(f"A person is in the conversation of {', '.join(visited)}; nothing was removed.")


async def _is_forgotten(common_dir: str, agent: Agent) -> bool:
    """Whether the agent's repository is gone, or another stands there, which knows nothing of it."""
    if await to_thread.run_sync(worktree_folder.git_folder, common_dir, Path(agent.worktree.path)):
        return False
    return not (await find_tip(common_dir, agent.ref) or await resolve_commit(common_dir, agent.worktree.base))


async def _is_unmerged(services: Services, common_dir: str, agent: Agent) -> bool:
    """Whether no other branch, and no tag, has the agent's commits, nor one that they were squashed into."""
    if await to_thread.run_sync(worktree_folder.is_locked, common_dir, Path(agent.worktree.path)):
        raise _refuse(agent, f"its worktree is locked; first: git worktree unlock {agent.worktree.path}")
    ref = agent.ref
    try:
        where = await find_checkout(common_dir, ref, leaving=Path(agent.worktree.path))
    except CallerError as error:
        raise _refuse(agent, str(error).removesuffix(".")) from error
    if where and not await to_thread.run_sync(lambda: os.path.realpath(where) == os.path.realpath(agent.worktree.path)):
        raise _refuse(agent, f"its branch is checked out in {where}; switch to another there")
    ended_at = await find_last(services.store, agent)
    tip = await find_tip(common_dir, ref) or ended_at
    try:
        if tip is None or await kept_refs.is_reachable_elsewhere(common_dir, tip, agent.worktree.base):
            return False
        is_whole = tip == ended_at and agent.merge is Merge.MERGED  # not gone on with since
        squashed = await services.store.merges.squash_commits(agent) if is_whole else []
        return not any(
            [await kept_refs.is_reachable_elsewhere(common_dir, commit, agent.worktree.base) for commit in squashed]
        )
    except GitError as error:
        raise _refuse(agent, f"git can't tell whether its work is merged: {error.last_line}") from error


def _refuse(agent: Agent, why: str) -> CallerError:
    return CallerError(f"{agent.label}: {why}. Nothing was removed.")


def _check_merged(unmerged: Sequence[Agent], forgotten: Sequence[Agent]) -> None:
    if unmerged:
        raise CallerError(
            f"Unmerged work: {', '.join(agent.label for agent in unmerged)}. Call merge_worktree first, or pass "
            "discard_unmerged=true (it stays reachable under refs/forkjoin/kept/); nothing was removed."
        )
    if left := next((agent for agent in forgotten if not is_gone(Path(agent.worktree.path))), None):
        raise _refuse(
            left,
            "its repository is gone, and what it had committed with it. Copy what you want to keep from "
            f"{left.worktree.path}, then pass discard_unmerged=true",
        )


async def _check_again(
    services: Services, common_dir: str, agents: Sequence[Agent], lefts: Mapping[int, Left]
) -> dict[int, Left]:
    """See that nobody has gone on with them meanwhile: a teardown may be long.

    Returns:
        What it added, which is committed, too.
    """
    added: dict[int, Left] = {}
    now = await services.store.agents.get_all(agent.number for agent in agents)
    _check_free(services, now)
    for agent in (one for one in now if one.number in lefts):
        tip = lefts[agent.number].tip
        if await find_tip(common_dir, agent.ref) != tip:
            raise _refuse(agent, "its branch was moved while its teardown ran; see that it may go, then call again")
        if not await is_at(services.store, common_dir, agent, tip, or_less=True):
            added[agent.number] = await _commit_loose(services, common_dir, agent)
    return added


async def _note_symbolic(common_dir: str, agent: Agent) -> str | None:
    """Return a warning if the agent's branch was made a symbolic ref."""
    target = await find_symbolic_target(common_dir, agent.ref)
    return None if target is None else f"{agent.label}: its branch was {describe_symbolic_target(target)}"


async def _commit_loose(services: Services, common_dir: str, agent: Agent) -> Left:
    """Commit what was left in the worktree since the agent's end."""
    try:
        return await commit_loose(services.store, common_dir, agent, f"Left in the worktree of {agent.label}")
    except GitError as error:
        raise _refuse(agent, f"what is uncommitted in its worktree can't be committed: {error.last_line}") from error


async def _find_strays(
    services: Services, common_dir: str, agent: Agent, lefts: Mapping[int, Left]
) -> list[UnsavedWork]:
    """Find the files of a worktree that no commit has: git can't take them, or was told not to see them."""
    top = Path(agent.worktree.path)
    found = await find_unseen(common_dir, top, await config_tampering.find_rules(services, agent))
    found |= dict.fromkeys(lefts[agent.number].refused, "git can't take it")
    strays = [UnsavedWork(name, what, (top / name,)) for name, what in found.items()]
    return [one for one in strays if not await to_thread.run_sync(is_gone, one.folders[0])]


async def _find_unsaved(
    common_dir: str, agents: Sequence[Agent], strays: Mapping[int, Sequence[UnsavedWork]], *, discard: bool
) -> list[tuple[Agent, list[UnsavedWork]]]:
    """Find work that exists only in the worktrees. Refuse the removal unless allowed."""
    each: list[tuple[Agent, list[UnsavedWork]]] = []
    for agent in agents:
        try:
            found = await unsaved_work.find_unsaved_work(common_dir, Path(agent.worktree.path), agent.worktree.base)
        except (GitError, PermissionError) as error:
            why = error.last_line if isinstance(error, GitError) else str(error)
            raise _refuse(agent, f"git can't tell what is in its worktree: {why}") from error
        found += strays.get(agent.number, ())
        if found and not discard:
            raise _refuse(
                agent,
                f"its worktree has work that is nowhere else: {printable_list([str(one) for one in found])}. Push it, "
                "or move it away, or pass discard_unmerged=true (it is kept as a tar file under refs/forkjoin/kept/)",
            )
        each += [(agent, found)] if found else []
    return each


async def _keep_unsaved(common_dir: str, agent: Agent, found: Sequence[UnsavedWork]) -> str:
    """Archive work that exists only in a worktree. Return where it is kept."""
    try:
        ref = await unsaved_work.archive_unsaved(common_dir, Path(agent.worktree.path), found, agent.slug)
    except (GitError, CallerError) as error:
        why = error.last_line if isinstance(error, GitError) else str(error)
        raise _refuse(agent, f"{printable_list([str(one) for one in found])}: {why}") from error
    names = printable_list([str(one) for one in found])
    command = folder_archive.restore_command(common_dir, ref, Path(agent.worktree.path).parent)
    return f"{agent.label}: {names} is kept in {ref}. This puts it back: {command}"


async def _keep_left(common_dir: str, agent: Agent, left: Left, *, discard: bool) -> None:
    """Keep the commits that only logs name: a reset or a rebase left them behind."""
    try:
        await keep_left(common_dir, Path(agent.worktree.path), agent.worktree.branch, left.tip, agent.slug)
    except GitError as error:
        if not discard:
            why = f"commits that it left behind can't be read: {error.last_line}. discard_unmerged=true gives them up"
            raise _refuse(agent, why) from error


async def _take_all_away(services: Services, common_dir: str, agents: Sequence[Agent]) -> dict[int, str | None]:
    kept_as: dict[int, str | None] = {}
    failed: list[str] = []
    for agent in agents:
        try:
            kept_as[agent.number] = await _take_away(services, common_dir, agent)
        except (OSError, GitError) as error:
            log.warning("%s: not all of it could be taken away: %s", agent.label, error)
            failed.append(f"{agent.label} ({error})")
    if failed:
        others = f" The others went: {printable_list([f'a{number}' for number in kept_as], 20)}." if kept_as else ""
        raise CallerError(
            f"Not all could be taken away of {'; '.join(failed[:5])}. Its commits are kept; call remove_worktrees "
            f"again.{others}"
        )
    return kept_as


async def _take_away(services: Services, common_dir: str, agent: Agent) -> str | None:
    """Take worktree and branch away; the ref that keeps what was on it, where nothing else does.

    Doing so twice is harmless, and has the same answer.
    """
    forgotten = await _is_forgotten(common_dir, agent)
    tip = None if forgotten else await find_tip(common_dir, agent.ref)
    kept_as = None if forgotten or not agent.worktree.prepared else await _keep(services, common_dir, agent, tip)
    if agent.timing.removed is not None:
        return kept_as
    if agent.worktree.prepared:
        await worktree.remove(common_dir, Path(agent.worktree.path))
        if not forgotten and not (agent.removing and await _is_checked_out(common_dir, agent)):
            await worktree.retire_branch(common_dir, agent.worktree.branch, tip)
    await config_tampering.forget_rules(services, agent)
    await services.store.agents.update(
        agent, removed=time.time()
    )  # the last: what is removed, nobody finishes to remove
    return kept_as


async def _is_checked_out(common_dir: str, agent: Agent) -> bool:
    """Whether somebody has checked out the branch of an agent whose removal was cut off: then it is theirs."""
    try:
        return await find_checkout(common_dir, agent.ref) is not None
    except CallerError:  # it is being rebased
        return True


async def _keep(services: Services, common_dir: str, agent: Agent, tip: str | None) -> str | None:
    """Keep what is on an agent's branch, at `tip`, where nothing else does; the ref that keeps it."""
    if tip is None:  # an agent has deleted it, or it went before
        if found := await kept_refs.find_kept_ref(common_dir, agent.slug):
            return found
        tip = await find_last(services.store, agent)
    if tip is None or await kept_refs.is_reachable_elsewhere(common_dir, tip, agent.worktree.base):
        return None
    return await kept_refs.keep_commit(common_dir, tip, agent.slug)
