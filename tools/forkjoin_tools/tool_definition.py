"""The base of all tools: arguments are validated, the tool is called, its result or error becomes the reply.

The SDK silently drops unknown arguments and puts a prefix before each error message. Here unknown arguments are
errors, and an error reply holds the message alone, because a model reads every token.
"""

import json
import logging
from collections.abc import Awaitable, Callable, Sequence
from types import UnionType
from typing import Annotated, Any, Union, cast, get_args, get_origin, get_type_hints

from forkjoin.core.error import CallerError, ForkjoinError, GitError
from forkjoin.reconciler import Reconciler
from mcp.server.mcpserver.context import Context
from mcp.server.mcpserver.exceptions import ToolError, UnexpectedToolError
from mcp.server.mcpserver.tools import Tool
from mcp.server.mcpserver.utilities.func_metadata import ArgModelBase, FuncMetadata
from mcp_types import CallToolResult, TextContent, ToolAnnotations
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from forkjoin_tools.reply_size import REPLY_BYTES, json_size
from forkjoin_tools.tool_call import ToolCall, open_call

log = logging.getLogger(__name__)


class Arguments(ArgModelBase):
    """The arguments of a tool. Unknown arguments are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Json = dict[str, "Json"] | list["Json"] | str | int | float | bool | None

#: Fields of results that are never redacted, even if their value equals a secret: later calls need them as they are.
_NEVER_REDACTED = frozenset({"id", "name", "branch", "target", "commit", "kept_as", "cursor"})

#: A tool's function: `async def name(call, arguments)`. Its docstring is the description that models read.
ToolFunction = Callable[[ToolCall, Any], Awaitable[BaseModel | str]]  # CallToolResult is a BaseModel


class ForkjoinTool(Tool):
    """A tool whose errors are short messages, and whose results contain no secrets and no client markup."""

    async def run(self, arguments: dict[str, Any], context: Context[Any, Any], convert_result: bool = False) -> Any:  # noqa: ARG002
        """Call the tool, and return the result as a `CallToolResult`.

        Raises:
            ToolError: The caller can correct the call, as the message says.
            UnexpectedToolError: forkjoin failed. The log has the traceback.
        """
        reconciler: Reconciler = context.request_context.lifespan_context[0]
        show = reconciler.services.environments.show
        try:
            checked = self.fn_metadata.arg_model.model_validate(self._parse_json(arguments))
            reads_only = bool(self.annotations and self.annotations.read_only_hint)
            call = await open_call(context.request_context, self.name, arguments, reads_only=reads_only)
            return _to_call_result(await self.fn(call, checked), show)
        except ValidationError as error:
            raise ToolError(show(describe_errors(self.name, error.errors(), self.fn_metadata.arg_model))) from None
        except CallerError as error:
            raise ToolError(show(str(error))) from None
        except GitError as error:
            log.warning("%s: %s", self.name, error)
            raise ToolError(
                show(f"git failed: {error.last_line}. Correct that, then call {self.name} again.")
            ) from error
        except (ForkjoinError, OSError) as error:
            raise UnexpectedToolError(show(f"{self.name} failed, which is not your fault: {error}")) from error

    def _parse_json(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments with JSON in strings parsed, as the SDK does.

        Arguments that are strings by their type stay as they are.
        """
        parsed, fields = self.fn_metadata.pre_parse_json(arguments), self.fn_metadata.arg_model.model_fields
        strings = {name for name, field in fields.items() if _accepts_string(field.annotation)}
        return {name: value if name in strings else parsed[name] for name, value in arguments.items()}


def _accepts_string(annotation: object) -> bool:
    is_union = get_origin(annotation) in (Annotated, Union, UnionType)
    return annotation is str or (is_union and any(map(_accepts_string, get_args(annotation))))


def _to_call_result(result: BaseModel | str, show: Callable[[str], str]) -> CallToolResult:
    """Convert a model to structured content and equal text, or a string to text.

    `show` removes secrets and client markup that an agent printed.
    """
    if isinstance(result, CallToolResult):
        return result
    if isinstance(result, str):
        return CallToolResult(content=[TextContent(type="text", text=show(result))])
    content: Any = _map_strings(result.model_dump(mode="json", exclude_none=True), show)
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    if json_size(text) + json_size(content) > REPLY_BYTES:
        text = "(the result is too large to be repeated as text: see structuredContent)"
    return CallToolResult(content=[TextContent(type="text", text=text)], structured_content=content)


def _map_strings(value: Json, show: Callable[[str], str]) -> Json:
    """Apply `show` to all strings in a value except those of `_NEVER_REDACTED`."""
    if isinstance(value, dict):
        return {key: part if key in _NEVER_REDACTED else _map_strings(part, show) for key, part in value.items()}
    if isinstance(value, list):
        return [_map_strings(part, show) for part in value]
    return show(value) if isinstance(value, str) else value


def tool(
    *, name: str | None = None, reads_only: bool = False, destroys: bool = False, always_loaded: bool = False
) -> Callable[[ToolFunction], ForkjoinTool]:
    """Return a decorator that makes a function a tool.

    The function's docstring describes the tool, and the model of its arguments the parameters.

    Args:
        name: The tool's name. Default: the function's.
        destroys: Whether the tool may remove something. Repeating the call then changes nothing more.
        always_loaded: Whether Claude Code shows the tool at once, and not only after a tool search.
    """

    def make(function: ToolFunction) -> ForkjoinTool:
        hints = get_type_hints(function)
        model: type[Arguments] = hints["arguments"]
        result = hints["return"]
        return ForkjoinTool(
            fn=function,
            name=name or function.__name__,
            title=None,
            description=" ".join((function.__doc__ or "").split()),
            parameters=cast("dict[str, Any]", _shorten_schema(model.model_json_schema())),
            fn_metadata=FuncMetadata(arg_model=model, output_model=None if result in (str, CallToolResult) else result),
            is_async=True,
            context_kwarg=None,
            annotations=ToolAnnotations(
                read_only_hint=reads_only,
                destructive_hint=destroys,
                idempotent_hint=destroys or reads_only,
                open_world_hint=False,
            ),
            meta={"anthropic/alwaysLoad": True} if always_loaded else None,
        )

    return make


#: Limits that no schema states: they are generous, and the error for a value outside of them states them.
_LIMITS = frozenset({"minimum", "exclusiveMinimum", "maximum", "minItems", "maxItems", "maxLength"})


def _shorten_schema(schema: Json, definitions: dict[str, Json] | None = None) -> Json:
    """Return a schema without the parts that a model does not need.

    These are titles, limits, our own docstrings, `null` as an alternative, and falsy defaults. References are inlined.
    """
    if isinstance(schema, list):
        return [_shorten_schema(item, definitions) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if definitions is None:
        definitions = cast("dict[str, Json]", schema.pop("$defs", {}))
    if isinstance(reference := schema.get("$ref"), str):
        return _shorten_schema(definitions[reference.rpartition("/")[2]], definitions)
    kept = {key: value for key, value in schema.items() if key != "title" or not isinstance(value, str)}
    short = {key: _shorten_schema(value, definitions) for key, value in kept.items() if key not in _LIMITS}
    if "properties" in short or ("enum" in short and "default" not in short):
        short.pop("description", None)  # a class's docstring
    if not short.get("default", True):
        del short["default"]
    choices = short.pop("anyOf", None)
    if not isinstance(choices, list):
        return short
    rest = [choice for choice in choices if choice != {"type": "null"}]
    only = rest[0]
    return {**only, **short} if len(rest) == 1 and isinstance(only, dict) else {"anyOf": rest, **short}


def describe_errors(tool: str, errors: Sequence[ErrorDetails], model: type[BaseModel]) -> str:
    """Return an error message with a line for each of the first five errors.

    For unknown arguments it lists the known ones.
    """
    lines = [_explain_one(error) for error in errors[:5]]
    unknown = [error["loc"] for error in errors if error["type"] == "extra_forbidden"]
    if any(len(where) == 1 for where in unknown):
        lines.append(f"{tool} takes: {', '.join(model.model_fields) or 'no arguments'}.")
    if any(len(where) == 3 and where[0] == "agents" for where in unknown):
        (entry,) = get_args(model.model_fields["agents"].annotation)
        lines.append(f"An agent takes: {', '.join(entry.model_fields)}.")
    return "\n".join([f"{tool} was refused; nothing was changed:", *lines])


def _explain_one(error: ErrorDetails) -> str:
    where = ".".join(str(part) for part in error["loc"]) or "arguments"
    match error["type"]:
        case "extra_forbidden":
            return f"{where[:100]}: unknown argument."
        case "missing":
            return f"{where}: missing."
        case "string_unicode":
            return f"{where}: must be valid Unicode; it contains half of a surrogate pair."
        case "value_error":
            return f"{where}: {error['msg'].removeprefix('Value error, ')}"
        case _:
            message = error["msg"].removesuffix(".")
            return f"{where}: {message[:1].lower()}{message[1:]} (given: {str(error.get('input'))[:80]!r})."
