"""forkjoin doctor and status name what is wrong with the records, a line each, with what to do."""

import json
from pathlib import Path
from typing import Any

from forkjoin.paths import Home
from forkjoin.record.damage import set_aside_copies
from harness import forkjoin
from records import damage


def _findings(where: Path) -> list[dict[str, Any]]:
    found = json.loads(forkjoin(where, "doctor", "--json", check=False).stdout)
    return [finding for finding in found if finding["what"] == "records"]


def test_damaged_records_are_found_and_told_of_until_their_copy_is_removed(repository: Path, home: Home) -> None:
    forkjoin(repository, "ps")
    forkjoin(repository, "daemon", "stop")
    assert [finding["ok"] for finding in _findings(repository)] == [True]
    damage(home.records, "random")
    (finding,) = _findings(repository)
    assert not finding["ok"]
    assert "taken over" in finding["remedy"]
    (line,) = [line for line in forkjoin(repository, "status").stdout.splitlines() if line.startswith("trouble: ")]
    (copy,) = set_aside_copies(home.records)
    assert line.endswith(f"then remove {copy}")
    assert [finding["ok"] for finding in _findings(repository)] == [True, False]
    copy.unlink()
    assert [finding["ok"] for finding in _findings(repository)] == [True]
