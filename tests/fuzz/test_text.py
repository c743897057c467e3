"""Fuzzing of configuration files, agents' output and names: any input is read, or rejected with a proper error."""

import json
import math
import string
from pathlib import Path
from typing import Any

from forkjoin.adapters.registry import ADAPTERS
from forkjoin.core.agent_spec import Name, Spec, slug
from forkjoin.core.error import CallerError
from forkjoin.core.event import TurnEnded, text_of, with_text
from forkjoin.core.settings import Settings, read_settings
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from support.fuzzing import fuzzed

NAME = TypeAdapter[str](Name)
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=30))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)),
)
DENIALS = st.lists(st.dictionaries(st.sampled_from(["tool_name", "tool_input"]), VALUES))
KEYS = ["default_agent", "limits", "agents", "max_running", "idle_minutes", "kind", "command", "environment", "x"]
TOML = st.lists(
    st.one_of(
        st.sampled_from(["[limits]", "[agents.x]", "[agents.claude]", "[[agents]]", "[agents.'../x']", "["]),
        st.tuples(st.sampled_from(KEYS), VALUES).map(lambda pair: f"{pair[0]} = {json.dumps(pair[1])}"),
        st.text(max_size=20),
    )
).map("\n".join)


def test_any_config_file_is_read_or_rejected_with_an_error_that_names_the_file(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"

    @fuzzed(150)
    @given(st.one_of(TOML.map(lambda text: text.encode(errors="surrogatepass")), st.binary(max_size=100)))
    def attack(content: bytes) -> None:
        file.write_bytes(content)
        try:
            settings = read_settings(file)
        except CallerError as error:
            assert str(file) in str(error)
        else:
            assert isinstance(settings, Settings)

    attack()


BLOCKS = st.fixed_dictionaries(
    {},
    optional={
        "type": st.one_of(st.sampled_from(["text", "tool_use", "tool_result"]), VALUES),
        "text": st.one_of(st.text(max_size=30), VALUES),
        "name": VALUES,
        "input": VALUES,
        "content": VALUES,
    },
)
LINES = st.fixed_dictionaries(
    {},
    optional={
        "type": st.one_of(st.sampled_from(["system", "assistant", "user", "result"]), VALUES),
        "subtype": st.one_of(st.sampled_from(["init", "api_retry", "success", "error"]), VALUES),
        "session_id": st.one_of(st.text(max_size=5), VALUES),
        "message": st.one_of(st.fixed_dictionaries({"content": st.lists(BLOCKS, max_size=3)}), VALUES),
        "result": st.one_of(st.text(max_size=30), VALUES),
        "is_error": VALUES,
        "total_cost_usd": st.one_of(st.floats(), VALUES),
        "usage": st.one_of(st.dictionaries(st.sampled_from(["input_tokens", "output_tokens"]), VALUES), VALUES),
        "permission_denials": st.one_of(DENIALS, VALUES),
        "errors": VALUES,
    },
)
RAW = st.one_of(
    st.binary(max_size=100),
    st.sampled_from([b"[" * 100_000, b'{"a":' * 50_000, b"\0", b'"\\ud800"']),
    st.just(b'{"type":"result","total_cost_usd":1e999}'),
)


@fuzzed(300)
@given(st.one_of(LINES.map(lambda line: json.dumps(line).encode()), RAW))
def test_every_adapter_reads_any_line_of_output(line: bytes) -> None:
    for adapter in ADAPTERS.values():
        for event in adapter.read(line):
            text_of(with_text(event, str.upper)).encode()
            if isinstance(event, TurnEnded):
                assert event.cost_usd is None or (math.isfinite(event.cost_usd) and event.cost_usd >= 0)


@fuzzed(200)
@given(st.text(max_size=100))
def test_an_accepted_name_is_safe_in_branch_names_and_paths(text: str) -> None:
    try:
        name = NAME.validate_python(text)
    except ValidationError:
        return
    assert set(name) <= set(string.ascii_letters + string.digits + "._-")
    assert not name.startswith((".", "-"))
    assert not name.endswith((".", ".lock"))
    assert ".." not in name
    assert len(name) <= 64


@fuzzed(200)
@given(st.one_of(st.text(max_size=200), st.sampled_from(["../../x", "--upload-pack=x", "a" * 5000, "x.lock", "CON"])))
def test_the_slug_of_any_task_is_empty_or_a_valid_name(task: str) -> None:
    made = slug(task)
    assert made == "" or NAME.validate_python(made) == made


@fuzzed(200)
@given(st.dictionaries(st.sampled_from([*Spec.model_fields, "no_such"]), VALUES))
def test_any_spec_is_accepted_or_rejected_with_validation_errors(parts: dict[str, Any]) -> None:
    try:
        Spec.model_validate(parts)
    except ValidationError as error:
        assert error.errors()
