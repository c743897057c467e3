"""Neutralization of client markup in agents' text before another model reads it.

What agents say is data. A client marks its own words to a model by tags such as `<system-reminder>`, and a model takes
what stands in such a tag for the client's word. So their first character is replaced, visibly: `[system-reminder>`.
The text keeps its length, and what is on disk stays as it was.
"""

import re
from collections.abc import Sequence

#: Characters that show nothing: a model may read over them within a name.
HIDDEN = "\u00ad\u034f\u061c\u180e\u200b-\u200f\u2060-\u2064\ufe00-\ufe0f\ufeff"
#: What stands for a `-`, if anything does: others look the same.
_HYPHEN = "[-_ \u2010-\u2015\u2212\ufe63\uff0d]?"
#: Claude Code's own tags, those of Anthropic's tool calls and of chat templates; a `-` may be a `_`, or left out.
_TAGS = (
    *("system-reminder", "system-message", "start-of-turn", "end-of-turn"),
    *("command-name", "command-message", "command-args", "command-contents", "command-stdout", "command-stderr"),
    *("local-command-stdout", "local-command-stderr", "local-command-caveat", "bash-input", "bash-stdout"),
    *("bash-stderr", "user-prompt-submit-hook", "session-start-hook", "user-memory-input", "task-notification"),
    *("teammate-message", "persisted-output", "new-diagnostics", "ide-selection", "ide-opened-file", "tool-use-error"),
    *("function-calls", "function-results", "function-call", "function-result", "tool-call", "tool-result"),
    *("tool-use", "tool-response"),
)
#: Those that are also words: after another they are a type's parameter, as in `List<System>`.
_WORDS = ("system", "human", "assistant", "sys", "functions", "invoke")
#: Mistral's and Llama's, in brackets.
_BRACKETED = ("INST", "SYSTEM-PROMPT", "TOOL-CALLS", "TOOL-RESULTS", "AVAILABLE-TOOLS")


def _spell(name: str) -> str:
    """Return a pattern for a name, with characters that show nothing between its letters."""
    return f"[{HIDDEN}]*".join(_HYPHEN if letter == "-" else letter for letter in name)


def _any(names: Sequence[str]) -> str:
    return "|".join(map(_spell, names))


_BEFORE = rf"[\s/{HIDDEN}]{{0,20}}"
_AFTER = rf"(?![{HIDDEN}]*[\w.:-])"
_SPECIAL = r"[|\uff5c][\w\u2581][\w\u2581 -]{0,60}[|\uff5c]"
_OPENS = "[<\uff1c]"
_TAG = re.compile(
    rf"{_OPENS}(?={_BEFORE}(?:(?:{_any(_TAGS)}){_AFTER}|{_spell('antml')}[{HIDDEN}]*:|{_SPECIAL}))"
    rf"|(?<!\w){_OPENS}(?={_BEFORE}(?:{_any(_WORDS)}){_AFTER})",
    re.IGNORECASE,
)
_BRACKET = re.compile(rf"\[(?={_BEFORE}(?:{_any(_BRACKETED)})[{HIDDEN}]*\])", re.IGNORECASE)
_TURN = re.compile(r"(\n[^\S\n]*\n[^\S\n]*(?:Human|Assistant)):")
#: Letters that no terminal shows and every model reads.
_INVISIBLE = re.compile("[\U000e0000-\U000e007f]")


def neutralize(text: str) -> str:
    """Return agents' text with client markup neutralized."""
    if "<" in text or "\uff1c" in text:
        text = _TAG.sub("[", text)
    if "[" in text:
        text = _BRACKET.sub("(", text)
    if "Human:" in text or "Assistant:" in text:
        text = _TURN.sub(r"\1;", text)
    return text if text.isascii() else _INVISIBLE.sub("\N{REPLACEMENT CHARACTER}", text)
