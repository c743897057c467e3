"""The documentation names only files and tools that exist."""

import json
import re
from pathlib import Path

import pytest
from forkjoin_tools.mcp_server import TOOLS

ROOT = Path(__file__).parents[1]
DOCUMENTS = ["README.md", "CONTRIBUTING.md", *(f"docs/{file.name}" for file in sorted((ROOT / "docs").iterdir()))]
PATHS = re.compile(r"`((?:server|tools|tests|docs|bench)/[\w./-]*\w/?)`|\]\(([\w./-]+)\)")


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_file_that_a_document_names_exists(name: str) -> None:
    document = ROOT / name
    found = [first or second for first, second in PATHS.findall(document.read_text())]
    missing = [path for path in found if not ((ROOT / path).exists() or (document.parent / path).exists())]
    assert found
    assert missing == []


def test_the_readme_lists_exactly_the_tools_of_the_lead() -> None:
    table = (ROOT / "README.md").read_text().partition("## The tools")[2].partition("\n\nThe command line")[0]
    assert set(re.findall(r"`([a-z]+_[a-z]+)`", table)) == {*TOOLS}


def test_the_example_configuration_is_json_and_starts_python_isolated_from_its_folder() -> None:
    example = json.loads((ROOT / "claude_config_example.json").read_text())
    assert example["mcpServers"]["forkjoin"]["args"][:2] == ["-P", "-E"]
