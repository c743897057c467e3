"""The names and types of all fields of a JSON schema, or of a JSON value, in one notation."""

import json
import re
from typing import Any, cast


def fields_of_schema(schema: dict[str, Any], needed: str) -> dict[str, str]:
    """Return the fields that a JSON schema describes.

    `a.b` is a field of `a`, `a[]` is an item of the array `a`, and `a.*` is a value of the object `a`. `needed` is the
    word for a field that the schema requires. With `default`, the word is `required` and defaults are included.
    """
    found: dict[str, set[str]] = {}

    def walk(part: dict[str, Any], path: str) -> None:
        if "$ref" in part:
            walk(schema["$defs"][part["$ref"].rpartition("/")[2]], path)
        for one in part.get("anyOf", []):
            walk(one, path)
        words = found.setdefault(path, set())
        kind = part.get("type", [])
        words.update([kind] if isinstance(kind, str) else kind)
        words.update(f"={value}" for value in (*part.get("enum", []), *([part["const"]] if "const" in part else [])))
        if needed == "default" and not isinstance(part.get("default", {}), dict):
            words.add(f"default={json.dumps(part['default'])}")
        below = {f"{path}.{name}": inner for name, inner in part.get("properties", {}).items()}
        below |= {f"{path}.*": inner for inner in part.get("patternProperties", {}).values()}
        for what, end in (("items", "[]"), ("additionalProperties", ".*")):
            if isinstance(part.get(what), dict):
                below[f"{path}{end}"] = part[what]
        for name, inner in below.items():
            walk(inner, name)
        for name in part.get("required", []):
            found[f"{path}.{name}"].add(needed if needed != "default" else "required")

    walk(schema, "")
    return {path.removeprefix("."): " ".join(sorted(words)) or "any" for path, words in found.items() if path}


_NAMES: dict[type[object], str] = {
    dict: "object",
    list: "array",
    str: "string",
    bool: "boolean",
    int: "number",
    float: "number",
}


def fields_of_value(value: object) -> dict[str, str]:
    """Return the fields of a JSON value, named like the fields of a schema."""
    found: dict[str, set[str]] = {}

    def walk(part: Any, path: str) -> None:
        found.setdefault(path, set()).add(_NAMES.get(type(cast("object", part)), "null"))
        if isinstance(part, dict):
            for name, inner in cast("dict[str, Any]", part).items():
                walk(inner, f"{path}.{name if re.fullmatch('[a-z_]+', name) else '*'}")
        if isinstance(part, list):
            for inner in cast("list[object]", part):
                walk(inner, f"{path}[]")

    walk(value, "")
    return {path.removeprefix("."): " ".join(sorted(words)) for path, words in found.items() if path}
