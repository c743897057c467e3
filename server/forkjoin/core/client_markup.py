"""Neutralization of client markup in agents' text before another model reads it.

An agent's text is data. A client marks its own messages to a model with tags such as `<system-reminder>`, and the model
believes that text in such a tag comes from the client. So the first character of such a tag is replaced visibly, as in
`[system-reminder>`. The text keeps its length. The logs on disk keep the original.
"""

import re
from collections.abc import Sequence

#: Characters without a visible shape. A model may ignore them within a name.
HIDDEN = "\u00ad\u034f\u061c\u180e\u200b-\u200f\u2060-\u2064\ufe00-\ufe0f\ufeff"
#: A pattern for a `-` in a tag name: the hyphen itself, a character that looks like a hyphen, or no character.
_HYPHEN = "[-_ \u2010-\u2015\u2212\ufe63\uff0d]?"
#: Tags of Claude Code, of Anthropic's tool calls, and of chat templates. A `-` may also be a `_`, or be missing.
_TAGS = (
    *("system-reminder", "system-message", "start-of-turn", "end-of-turn"),
    *("command-name", "command-message", "command-args", "command-contents", "command-stdout", "command-stderr"),
    *("local-command-stdout", "local-command-stderr", "local-command-caveat", "bash-input", "bash-stdout"),
    *("bash-stderr", "user-prompt-submit-hook", "session-start-hook", "user-memory-input", "task-notification"),
    *("teammate-message", "persisted-output", "new-diagnostics", "ide-selection", "ide-opened-file", "tool-use-error"),
    *("function-calls", "function-results", "function-call", "function-result", "tool-call", "tool-result"),
    *("tool-use", "tool-response"),
)
#: Tags that are also words. After another word they are type parameters, as in `List<System>`, and are not replaced.
_WORDS = ("system", "human", "assistant", "sys", "functions", "invoke")
#: Tags of Mistral and Llama, in brackets.
_BRACKETED = ("INST", "SYSTEM-PROMPT", "TOOL-CALLS", "TOOL-RESULTS", "AVAILABLE-TOOLS")


def _spell(name: str) -> str:
    """Return a pattern for a tag name with invisible characters between its letters."""
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
#: The Unicode tag characters: no terminal shows them, and every model reads them.
_INVISIBLE = re.compile("[\U000e0000-\U000e007f]")


def neutralize(text: str) -> str:
    """Return an agent's text with client markup neutralized."""
    if "<" in text or "\uff1c" in text:
        text = _TAG.sub("[", text)
    if "[" in text:
        text = _BRACKET.sub("(", text)
    if "Human:" in text or "Assistant:" in text:
        text = _TURN.sub(r"\1;", text)
    return text if text.isascii() else _INVISIBLE.sub("\N{REPLACEMENT CHARACTER}", text)
