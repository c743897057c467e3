"""Resources: what tools tell of an agent, and of forkjoin itself, to be read by its address."""

import re

from mcp.server.mcpserver.exceptions import ResourceNotFoundError
from mcp_types import Resource, ResourceTemplate

#: What can be read of an agent: by which tool, and what that is.
_OF_AGENTS = {
    "result": ("get_result", "application/json", "What came of an agent"),
    "log": ("read_log", "text/plain", "What an agent said and did, the first page"),
    "diff": ("read_diff", "text/plain", "What an agent changed, the first page"),
}
_STATUS = "forkjoin://status"
_ADDRESS = re.compile(r"forkjoin://agents/([^/?#]+)/(result|log|diff)")

RESOURCES = [
    Resource(uri=_STATUS, name="status", description="How forkjoin itself is doing", mime_type="application/json")
]
TEMPLATES = [
    ResourceTemplate(uri_template=f"forkjoin://agents/{{id}}/{kind}", name=kind, description=what, mime_type=mime)
    for kind, (_, mime, what) in _OF_AGENTS.items()
]


def find(uri: str) -> tuple[str, dict[str, str], str]:
    """The tool that tells what is at this address, its arguments, and the kind of its text.

    Raises:
        ResourceNotFoundError: There is no such address.
    """
    if uri == _STATUS:
        return "get_status", {}, "application/json"
    if found := _ADDRESS.fullmatch(uri):
        tool, mime, _ = _OF_AGENTS[found[2]]
        return tool, {"id": found[1]}, mime
    known = ", ".join([_STATUS, *(template.uri_template for template in TEMPLATES)])
    raise ResourceNotFoundError(f"There is nothing at {uri[:200]!r}. There are: {known}.")
