"""The repository configuration: forkjoin.toml, used only with content that a person has trusted.

The file is read from the caller's checkout, never from an agent's worktree. If its content isn't trusted, a call that
doesn't pass `verify` is refused if the file has one or may have lost one. So no verify is skipped silently.
"""

from dataclasses import dataclass
from pathlib import Path

from anyio import to_thread

from forkjoin.core.error import CallerError
from forkjoin.core.paths import Home
from forkjoin.core.regular_file import read_regular
from forkjoin.core.settings import RepositorySettings, check_settings
from forkjoin.core.trust_records import Trust, Trusted, digest
from forkjoin.git.repository import Checkout

#: The most bytes that a forkjoin.toml may have.
_LIMIT = 64 * 1024
_NAME = "forkjoin.toml"


@dataclass(frozen=True, slots=True)
class RepositoryConfig:
    """The content of a valid forkjoin.toml, whether trusted or not."""

    file: Path
    content: bytes
    settings: RepositorySettings

    @property
    def digest(self) -> str:
        return digest(self.content)


def read_repository_config(home: Home, checkout: Checkout) -> RepositoryConfig | None:
    """Return the forkjoin.toml of a checkout.

    Return `None` if the file is missing, or the checkout is bare or the worktree of an agent.

    Raises:
        CallerError: The file can't be read, or a key in it is unknown or wrong.
    """
    if checkout.top is None or Path(checkout.top).is_relative_to(home.worktrees.resolve()):
        return None
    file = Path(checkout.top, _NAME)
    try:
        content = read_regular(file, _LIMIT + 1)
    except OSError as error:
        raise CallerError(f"{file}: {error.strerror}") from error
    if content is None:
        return None
    if len(content) > _LIMIT:
        raise CallerError(f"{file} is larger than {_LIMIT // 1024} KB. Shorten it.")
    return RepositoryConfig(file, content, check_settings(RepositorySettings, file, content))


async def find_trusted_settings(
    home: Home, checkout: Checkout, *, names_verify: bool
) -> tuple[RepositorySettings, str | None]:
    """Return the settings to use for a repository, and a note.

    These are the file's settings if a person has trusted its content. Otherwise they are the last trusted settings if
    the person has chosen to keep using them, or else the defaults. The note is `None` if the file's settings are used
    or are the defaults. Otherwise it says why they aren't used.

    Args:
        names_verify: Whether the caller passed `verify`.

    Raises:
        CallerError: The file can't be read. Or its settings aren't used, and the caller relies on it for verify.
    """
    wanted = await to_thread.run_sync(read_repository_config, home, checkout)
    trusted = await to_thread.run_sync(Trust(home.trust).read, checkout.common_dir) or Trusted()
    loses, is_trusted = has_lost_verify(wanted, trusted), wanted is not None and wanted.digest in trusted.files
    if not loses and (wanted is None or wanted.settings == RepositorySettings()):
        return RepositorySettings(), None
    if wanted and is_trusted and (names_verify or not loses):
        return wanted.settings, None
    last = _read_last(trusted)
    why = _why_unused(checkout, wanted, trusted, last, loses=loses)
    if trusted.keep and last:
        return last, f"{why} The version that a person trusted last is used."
    if not names_verify and (loses or (wanted and wanted.settings.verify)):
        raise CallerError(_unclear_verify_message(why, last))
    return RepositorySettings(), f"{why} A person can review and trust it with: forkjoin trust"


def has_lost_verify(wanted: RepositoryConfig | None, trusted: Trusted) -> bool:
    """Return whether forkjoin.toml may have lost a verify that a person trusted.

    This is so if the file is missing or has no verify, and the last trusted content has one or is unknown.
    """
    if wanted and wanted.settings.verify:
        return False
    if trusted.damaged or not trusted.files:
        return trusted.damaged
    last = _read_last(trusted)
    if last is None:
        return wanted is None or wanted.digest not in trusted.files
    return last.verify is not None


def _why_unused(
    checkout: Checkout,
    wanted: RepositoryConfig | None,
    trusted: Trusted,
    last: RepositorySettings | None,
    *,
    loses: bool,
) -> str:
    """Return a sentence that says why the present forkjoin.toml is not used.

    Args:
        last: The last trusted settings, or `None` if unknown.
        loses: Whether the file may have lost a trusted verify.
    """
    if trusted.damaged:
        return "The record of what a person trusted here is damaged, so nothing counts as trusted."
    if wanted is None:
        has = "has a verify" if last else "may have a verify"
        # A bare repository has no checkout, and a forkjoin.toml in an agent's worktree counts as missing.
        where = checkout.top or checkout.common_dir
        return f"There is no {_NAME} to use in {where}, but the version that a person trusted last {has}."
    lost = " It has no verify, but the version that a person trusted last has one." if loses and last else ""
    if wanted.digest in trusted.files:
        return f"{wanted.file} was not used.{lost}"
    return f"{wanted.file} was not used: nobody has trusted its present content.{lost}"


def _read_last(trusted: Trusted) -> RepositorySettings | None:
    """Return the settings that a person trusted last, or `None` if unknown or invalid."""
    if trusted.last is None:
        return None
    try:
        return check_settings(RepositorySettings, Path(_NAME), trusted.last.encode())
    except CallerError:
        return None


def _unclear_verify_message(why: str, last: RepositorySettings | None) -> str:
    known = f" (trusted last: {last.verify[:300]!r})" if last and last.verify else ""
    keep = ", or forkjoin trust --keep to use the last trusted version" if last else ""
    return (
        f"{why} So it is unclear which verify to run, and nothing was done. Pass it as `verify`{known}, or pass "
        f'verify="" for none; or ask the person to review it with: forkjoin trust{keep}.'
    )
