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
from collections.abc import Callable, Iterable, Mapping

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
    for secret in sorted(secrets, key=lambda one: (-len(one), one)):
        for form in {secret, json.dumps(secret)[1:-1]}:
            if form in text:
                # with what escapes its first character: a text may be JSON
                text = re.sub(rf"\\*{re.escape(form)}", _mark, text)
    for sign, pattern in _FORMS:
        if sign in text:
            text = pattern.sub(_mark, text)
    return text


def find_rest(before: str, text: str, redact: Callable[[str], str]) -> int:
    """Return how many characters at the beginning of `text` belong to a key that begins in `before`."""
    whole = redact(before + text)
    kept = (cut for cut in range(len(text)) if whole.endswith((text[cut:], redact(text[cut:]))))
    return next(kept, len(text))


def _mark(found: "re.Match[str]") -> str:
    whole, secret = found[0], found[found.lastindex or 0]
    return whole.removesuffix(secret) + (MARK if len(secret) >= len(MARK) else _SHORT_MARK)
