"""MCP resources: results of reading tools, under a URI for each agent and for forkjoin's status."""

import re

from mcp.server.mcpserver.exceptions import ResourceNotFoundError
from mcp_types import Resource, ResourceTemplate

#: The kinds of resources of an agent: the tool that returns the content, its MIME type, and a description.
_AGENT_RESOURCES = {
    "result": ("get_result", "application/json", "The outcome of an agent"),
    "log": ("read_log", "text/plain", "What an agent said and did, the first page"),
    "diff": ("read_diff", "text/plain", "What an agent changed, the first page"),
}
_STATUS_URI = "forkjoin://status"
_AGENT_URI = re.compile(r"forkjoin://agents/([^/?#]+)/(result|log|diff)")

RESOURCES = [
    Resource(
        uri=_STATUS_URI,
        name="status",
        description="Agents and merges under way, reasons to wait, and problems",
        mime_type="application/json",
    )
]
TEMPLATES = [
    ResourceTemplate(uri_template=f"forkjoin://agents/{{id}}/{kind}", name=kind, description=what, mime_type=mime)
    for kind, (_, mime, what) in _AGENT_RESOURCES.items()
]


def find_resource(uri: str) -> tuple[str, dict[str, str], str]:
    """Return the tool that reads a resource, its arguments, and the MIME type.

    Raises:
        ResourceNotFoundError: There is no such resource.
    """
    if uri == _STATUS_URI:
        return "get_status", {}, "application/json"
    if found := _AGENT_URI.fullmatch(uri):
        tool, mime, _ = _AGENT_RESOURCES[found[2]]
        return tool, {"id": found[1]}, mime
    known = ", ".join([_STATUS_URI, *(template.uri_template for template in TEMPLATES)])
    raise ResourceNotFoundError(f"There is no resource {uri[:200]!r}. Known are: {known}.")
