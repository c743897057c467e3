"""A tool as forkjoin means it: validate → call → shape, and errors become tool errors in one place.

The SDK drops unknown arguments in silence and puts a prefix before each error. Here what is unknown is refused, and
the text of an error is the error alone: a model reads every token.
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

from forkjoin_tools.call_context import Desk, open_desk
from forkjoin_tools.reply_size import ROOM, wire_size

log = logging.getLogger(__name__)


class Arguments(ArgModelBase):
    """A tool's arguments; what is not among them is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Json = dict[str, "Json"] | list["Json"] | str | int | float | bool | None

#: What the next call is made with: a name that happens to be somebody's password stays a name.
_NAMES = frozenset({"id", "name", "branch", "target", "commit", "kept_as", "cursor"})

#: What a tool is written as: `async def name(desk, arguments)`, its docstring the description.
Function = Callable[[Desk, Any], Awaitable[BaseModel | str]]  # a CallToolResult is a BaseModel: it stays as it is


class StrictTool(Tool):
    async def run(self, arguments: dict[str, Any], context: Context[Any, Any], convert_result: bool = False) -> Any:  # noqa: ARG002
        """Call the tool.

        Raises:
            ToolError: The caller can put it right; the message says how.
            UnexpectedToolError: We can't; the log has the traceback.
        """
        reconciler: Reconciler = context.request_context.lifespan_context[0]
        show = reconciler.services.environments.show
        try:
            checked = self.fn_metadata.arg_model.model_validate(self._parsed(arguments))
            reads_only = bool(self.annotations and self.annotations.read_only_hint)
            desk = await open_desk(context.request_context, self.name, arguments, reads_only=reads_only)
            return _shape(await self.fn(desk, checked), show)
        except ValidationError as error:
            raise ToolError(show(explain(self.name, error.errors(), self.fn_metadata.arg_model))) from None
        except CallerError as error:
            raise ToolError(show(str(error))) from None
        except GitError as error:
            log.warning("%s: %s", self.name, error)
            raise ToolError(show(f"git refused: {error.last_line}. Mend that, then call {self.name} again.")) from error
        except (ForkjoinError, OSError) as error:
            raise UnexpectedToolError(show(f"{self.name} failed, which is not your fault: {error}")) from error

    def _parsed(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """The arguments with what is JSON in a string read, as the SDK does it, but where a text is meant."""
        parsed, fields = self.fn_metadata.pre_parse_json(arguments), self.fn_metadata.arg_model.model_fields
        texts = {name for name, field in fields.items() if _takes_text(field.annotation)}
        return {name: given if name in texts else parsed[name] for name, given in arguments.items()}


def _takes_text(annotation: object) -> bool:
    one_of = get_origin(annotation) in (Annotated, Union, UnionType)
    return annotation is str or (one_of and any(map(_takes_text, get_args(annotation))))


def _shape(result: BaseModel | str, show: Callable[[str], str]) -> CallToolResult:
    """Convert a model to structured output and equal text. Leave text as it is.

    Neither holds a key or a client's markup, whatever an agent printed.
    """
    if isinstance(result, CallToolResult):
        return result
    if isinstance(result, str):
        return CallToolResult(content=[TextContent(type="text", text=show(result))])
    content: Any = _shown(result.model_dump(mode="json", exclude_none=True), show)
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    if wire_size(text) + wire_size(content) > ROOM:
        text = "(the answer is too large to be given twice: see structuredContent)"
    return CallToolResult(content=[TextContent(type="text", text=text)], structured_content=content)


def _shown(value: Json, show: Callable[[str], str]) -> Json:
    """Return the value with each of its texts as `show` makes it. Names stay as they are."""
    if isinstance(value, dict):
        return {key: part if key in _NAMES else _shown(part, show) for key, part in value.items()}
    if isinstance(value, list):
        return [_shown(part, show) for part in value]
    return show(value) if isinstance(value, str) else value


def tool(
    *, reads_only: bool = False, destroys: bool = False, always_loaded: bool = False
) -> Callable[[Function], StrictTool]:
    """Make a function a tool: its name, its docstring as description, its argument model as schema.

    Args:
        destroys: Whether it may take something away, rather than only add; done again it takes away no more.
        always_loaded: Whether Claude Code shows it at once instead of behind its tool search.
    """

    def make(function: Function) -> StrictTool:
        hints = get_type_hints(function)
        model: type[Arguments] = hints["arguments"]
        shape = hints["return"]
        return StrictTool(
            fn=function,
            name=function.__name__,
            title=None,
            description=" ".join((function.__doc__ or "").split()),
            parameters=cast("dict[str, Any]", _slim(model.model_json_schema())),
            fn_metadata=FuncMetadata(arg_model=model, output_model=None if shape in (str, CallToolResult) else shape),
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


#: Bounds are generous, and whoever is beyond one is told: no model has to read them before.
_BOUNDS = frozenset({"minimum", "exclusiveMinimum", "maximum", "minItems", "maxItems", "maxLength"})


def _slim(schema: Json, definitions: dict[str, Json] | None = None) -> Json:
    """Return a schema without what tells a model little: titles, bounds, references, null and default false."""
    if isinstance(schema, list):
        return [_slim(item, definitions) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if definitions is None:
        definitions = cast("dict[str, Json]", schema.pop("$defs", {}))
    if isinstance(reference := schema.get("$ref"), str):
        return _slim(definitions[reference.rpartition("/")[2]], definitions)
    told = {key: value for key, value in schema.items() if key != "title" or not isinstance(value, str)}
    slim = {key: _slim(value, definitions) for key, value in told.items() if key not in _BOUNDS}
    if "properties" in slim or ("enum" in slim and "default" not in slim):
        slim.pop("description", None)  # our own docstring
    if not slim.get("default", True):
        del slim["default"]
    choices = slim.pop("anyOf", None)
    if not isinstance(choices, list):
        return slim
    rest = [choice for choice in choices if choice != {"type": "null"}]
    only = rest[0]
    return {**only, **slim} if len(rest) == 1 and isinstance(only, dict) else {"anyOf": rest, **slim}


def explain(tool: str, errors: Sequence[ErrorDetails], model: type[BaseModel]) -> str:
    """Return an error message with a line for each of the first five errors in a call's arguments.

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
            return f"{where[:100]}: no such argument."
        case "missing":
            return f"{where}: is missing."
        case "string_unicode":
            return f"{where}: must be text that UTF-8 can carry; it holds half of a surrogate pair."
        case "value_error":
            return f"{where}: {error['msg'].removeprefix('Value error, ')}"
        case _:
            message = error["msg"].removesuffix(".")
            return f"{where}: {message[:1].lower()}{message[1:]} (given: {str(error.get('input'))[:80]!r})."
