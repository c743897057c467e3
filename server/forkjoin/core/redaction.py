"""Redaction of keys and passwords in texts that are stored or shown to a lead.

Keys are recognized by their form. The forms are the rules of gitleaks (MIT, config/gitleaks.toml) that belong to a
single issuer and need no context. Libraries that know more forms are larger than all of forkjoin. Passwords have no
form. They are the values of variables in the lead's environment whose names end with words such as PASSWORD. The tokens
that forkjoin issues to agents have a form of their own. A key that was encoded or split by other characters is not
found.

A replacement is never longer than the replaced text, and never splits a quote or an escape sequence. So JSON stays
valid, and a page does not grow.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping

MARK = "[redacted]"
#: Prefix of the tokens that forkjoin issues to attempts.
ISSUED = "fjt_"
#: Replaces secrets that are shorter than `MARK`.
_SHORT_MARK = "[hidden]"
#: Shorter values do not count as secrets.
SHORTEST = len(_SHORT_MARK)
_SECRET_NAMES = ("KEY", "TOKEN", "SECRET", "PASSWORD")

_PEM_BODY = r"(?:[A-Za-z0-9+/=\s:,.]|-(?!----)|\\[nrt])*"
_PEM_END = r"-----END [A-Z ]{0,30}PRIVATE KEY[A-Z ]{0,10}-----"
#: Excludes words that end with `sk-`, such as `task-`. It is placed after `sk-`, which is faster.
_BEGINS = r"(?:(?<![A-Za-z0-9]sk-)|(?<=\\[nrt]sk-))"
#: Pairs of a fixed part of the key, which is searched first (100 times as fast), and the pattern of the whole key. If
#: the pattern has a group, only the group is replaced. The pattern with `_BEGINS` comes last.
_FORMS: tuple[tuple[str, "re.Pattern[str]"], ...] = tuple(
    (sign, re.compile(form))
    for sign, form in (
        ("PRIVATE KEY", rf"-----BEGIN [A-Z ]{{0,30}}PRIVATE KEY[A-Z ]{{0,10}}-----{_PEM_BODY}(?:{_PEM_END})?"),
        ("PRIVATE KEY", rf"\A[A-Za-z0-9+/=\s]*{_PEM_END}"),  # a page may begin within a key
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
    """Return the values of the variables whose names end with words such as PASSWORD."""
    return frozenset(
        value
        for name, value in environment.items()
        if name.upper().endswith(_SECRET_NAMES) and len(value) >= SHORTEST and value not in MARK
    )


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """Return the text without these secrets, and without keys of a known form."""
    for pattern in (*_patterns(secrets, text), *_forms(text)):
        text = pattern.sub(_mark, text)
    return text


def redact_edges(before: str, text: str, after: str, secrets: Iterable[str] = ()) -> str:
    """Return a part of a longer text without fragments of secrets at its two edges.

    Complete secrets within the part stay: `redact` replaces them.

    Args:
        before: The text before the part.
        text: The part.
        after: The text after the part.
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
    """Return the end of a longer text without secrets.

    A fragment of a secret at its beginning is redacted too.
    """
    return redact(redact_edges(before, text, "", secrets), secrets)


def _patterns(secrets: Iterable[str], text: str) -> Iterator["re.Pattern[str]"]:
    """Yield a pattern for each secret in the text, plain or escaped as in JSON.

    The longest secret comes first.
    """
    for secret in sorted(secrets, key=lambda secret: (-len(secret), secret)):
        for form in {secret, json.dumps(secret)[1:-1]}:
            if form in text:
                # matches also the backslashes that escape the first character in JSON, so that none is left over
                yield re.compile(rf"\\*{re.escape(form)}")


def _forms(text: str) -> Iterator["re.Pattern[str]"]:
    return (pattern for sign, pattern in _FORMS if sign in text)


def _mark(found: "re.Match[str]") -> str:
    whole, secret = found[0], found[found.lastindex or 0]
    return whole.removesuffix(secret) + (MARK if len(secret) >= len(MARK) else _SHORT_MARK)
