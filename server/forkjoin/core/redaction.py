"""Redaction of keys and passwords in what a lead is shown and what is kept.

What looks like a key is known by its form: the forms are those of gitleaks (MIT, config/gitleaks.toml) that name one
issuer and need no context; the libraries that know more of them bring more than all of forkjoin. A password has no
form: it is known by the lead's environment, where a variable's name says what it holds. The tokens that we issue to
agents have a form of their own. None of this finds a key that was encoded, or torn apart by other characters.

A replacement is never longer than what it replaces, and no quote or escape is ever torn: JSON stays JSON, and what
fitted into a page still fits.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping

MARK = "[redacted]"
#: How each token begins that is issued to an agent's attempt.
ISSUED = "fjt_"
#: Stands for what is shorter than the mark.
_SHORT_MARK = "[hidden]"
#: Characters of the shortest value that counts as a secret.
SHORTEST = len(_SHORT_MARK)
_SECRET_NAMES = ("KEY", "TOKEN", "SECRET", "PASSWORD")

_PEM_BODY = r"(?:[A-Za-z0-9+/=\s:,.]|-(?!----)|\\[nrt])*"
_PEM_END = r"-----END [A-Z ]{0,30}PRIVATE KEY[A-Z ]{0,10}-----"
#: That no word goes on in `sk-`, as in `task-`; looked for after it, which is quicker.
_BEGINS = r"(?:(?<![A-Za-z0-9]sk-)|(?<=\\[nrt]sk-))"
#: What a text must hold for a form to be looked for in it (a plain find is a hundred times as quick), and the form;
#: where it has a group, that alone is taken out. What must stand at a word's beginning comes last.
_FORMS: tuple[tuple[str, "re.Pattern[str]"], ...] = tuple(
    (sign, re.compile(form))
    for sign, form in (
        ("PRIVATE KEY", rf"-----BEGIN [A-Z ]{{0,30}}PRIVATE KEY[A-Z ]{{0,10}}-----{_PEM_BODY}(?:{_PEM_END})?"),
        ("PRIVATE KEY", rf"\A[A-Za-z0-9+/=\s]*{_PEM_END}"),  # a page may begin within one
        (ISSUED, rf"{ISSUED}[A-Za-z0-9_-]{{8,32}}"),
        ("sk-ant-", r"sk-ant-[A-Za-z0-9_-]{8,}"),
        ("github_pat_", r"github_pat_[A-Za-z0-9_]{20,}"),
        *((f"gh{kind}_", rf"gh{kind}_[A-Za-z0-9]{{20,}}") for kind in "pousr"),
        ("glpat-", r"glpat-[A-Za-z0-9_-]{20,}"),
        ("AKIA", r"AKIA[A-Z0-9]{16}"),
        ("ASIA", r"ASIA[A-Z0-9]{16}"),
        ("AIza", r"AIza[A-Za-z0-9_-]{35}"),
        ("xox", r"xox[a-z]-[A-Za-z0-9-]{10,}"),
        ("xapp-", r"xapp-[A-Za-z0-9-]{10,}"),
        ("npm_", r"npm_[A-Za-z0-9]{36}"),
        ("hf_", r"hf_[A-Za-z0-9]{34}"),
        ("earer ", r"[Bb]earer +([A-Za-z0-9._~+/=-]{10,})"),
        ("sk-", rf"sk-{_BEGINS}(?:(?:proj|svcacct|admin)-[A-Za-z0-9_-]{{20,}}|[A-Za-z0-9]{{20,}})"),
    )
)


def secrets_of(environment: Mapping[str, str]) -> frozenset[str]:
    """The values in an environment that are to be shown to nobody."""
    return frozenset(
        value
        for name, value in environment.items()
        if name.upper().endswith(_SECRET_NAMES) and len(value) >= SHORTEST and value not in MARK
    )


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """The text without these secrets, and without what looks like a key."""
    for pattern in (*_patterns(secrets, text), *_forms(text)):
        text = pattern.sub(_mark, text)
    return text


def redact_edges(before: str, text: str, after: str, secrets: Iterable[str] = ()) -> str:
    """Return a part of a longer text without the pieces of keys that its two edges cut.

    Keys that are within it whole stay: `redact` takes them out.

    Args:
        before: What stands before it.
        after: What stands after it.
    """
    whole = before + text + after
    first, last = len(before), len(before) + len(text)
    patterns = (*_patterns(secrets, whole), *_forms(whole))
    spans = [found.span(found.lastindex or 0) for pattern in patterns for found in pattern.finditer(whole)]
    begin = max((end for start, end in spans if start < first < end), default=first)
    end = min((start for start, end in spans if start < last < end), default=last)
    if begin >= end and begin > first and end < last:
        return MARK
    return f"{MARK if begin > first else ''}{whole[begin:end]}{MARK if end < last else ''}"


def redact_end(before: str, text: str, secrets: Iterable[str] = ()) -> str:
    """Return the end of a longer text without keys, and without the piece of one that its beginning cuts."""
    return redact(redact_edges(before, text, "", secrets), secrets)


def _patterns(secrets: Iterable[str], text: str) -> Iterator["re.Pattern[str]"]:
    """Yield a pattern for each way in which a secret stands in a text, the longest secret first."""
    for secret in sorted(secrets, key=lambda one: (-len(one), one)):
        for form in {secret, json.dumps(secret)[1:-1]}:
            if form in text:
                # with what escapes its first character: a text may be JSON
                yield re.compile(rf"\\*{re.escape(form)}")


def _forms(text: str) -> Iterator["re.Pattern[str]"]:
    return (pattern for sign, pattern in _FORMS if sign in text)


def _mark(found: "re.Match[str]") -> str:
    whole, secret = found[0], found[found.lastindex or 0]
    return whole.removesuffix(secret) + (MARK if len(secret) >= len(MARK) else _SHORT_MARK)
