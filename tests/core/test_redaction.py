"""The redaction of keys: keys are replaced, other text is kept, and the text around a key is not damaged."""

import json

import pytest
from forkjoin.core.redaction import MARK, redact, redact_edges, secrets_of
from hypothesis import given
from hypothesis import strategies as st
from support.fuzzing import fuzzed

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
BODY = "Q7" * 30
#: Built from parts, so that secret scanners do not report this file.
KEYS = [
    f"sk-ant-api03-{BODY}",
    f"sk-proj-{BODY}",
    f"sk-{BODY}",
    f"ghp_{BODY}",
    f"gho_{BODY}",
    f"github_pat_{BODY}",
    f"glpat-{BODY}",
    f"AKIA{BODY[:16]}",
    f"ASIA{BODY[:16]}",
    f"AIza{BODY[:35]}",
    f"xoxb-{BODY}",
    f"npm_{BODY[:36]}",
    f"hf_{BODY[:34]}",
    f"fjt_{BODY[:32]}",
]
PEM = (
    f"-----BEGIN RSA {'PRIVATE'} KEY-----\nProc-Type: 4,ENCRYPTED\n\n{BODY}\n{BODY}\n-----END RSA {'PRIVATE'} KEY-----"
)
HARMLESS = [
    "task-0123456789abcdef0123456789abcdef",
    "a bearer of news",
    "xoxo",
    "the AKIA prefix",
    "sk-learn-compatible-estimator-for-trees",
    "-----BEGIN CERTIFICATE-----\nQUJD\n-----END CERTIFICATE-----",
    "5f2c3d1e9a8b7c6d5e4f3a2b1c0d9e8f7a6b5c4d",
]


@pytest.mark.parametrize("key", KEYS, ids=lambda key: str(key)[:11])
@pytest.mark.parametrize("around", ["{}", "key={} and more", '{{"key":"{}"}}', "line\\n{}\\n", "\n{}\n", "(see {})"])
def test_a_key_is_redacted_in_any_context(key: str, around: str) -> None:
    assert redact(around.format(key)) == around.format(MARK)


@pytest.mark.parametrize("text", HARMLESS)
def test_text_without_a_key_is_unchanged(text: str) -> None:
    assert redact(text) == text


def test_a_bearer_token_is_recognized_by_the_word_before_it() -> None:
    assert redact(f"Authorization: Bearer {BODY}\r\nHost: x") == f"Authorization: Bearer {MARK}\r\nHost: x"


@pytest.mark.parametrize("escaped", [False, True])
def test_a_private_key_is_redacted_and_the_text_around_it_is_kept(escaped: bool) -> None:
    pem = json.dumps(PEM)[1:-1] if escaped else PEM
    assert redact(f"before; {pem}; after") == f"before; {MARK}; after"


@pytest.mark.parametrize("cut", [40, 100, len(PEM) - 5])
def test_a_private_key_that_a_page_cuts_in_two_is_redacted_in_both_halves(cut: int) -> None:
    halves = redact(PEM[:cut]), redact(PEM[cut:])
    assert BODY[:20] not in "".join(halves[0])
    assert cut < 100 or BODY[:20] not in halves[1]


@pytest.mark.parametrize("key", [*KEYS, PEM, "first/secret"], ids=lambda key: str(key)[:11])
def test_a_key_that_a_page_cuts_is_redacted_in_both_pages(key: str) -> None:
    text = f"before {key} after"
    for cut in range(8, 7 + len(key)):
        first = redact_edges("", text[:cut], text[cut:], {"first/secret"})
        last = redact_edges(text[:cut], text[cut:], "", {"first/secret"})
        assert (first, last) == (f"before {MARK}", f"{MARK} after"), cut
        assert redact_edges(text[:cut], text[cut : cut + 1], text[cut + 1 :], {"first/secret"}) in (MARK, f"{MARK} ")


def test_a_bearer_token_that_a_page_cuts_is_redacted_in_both_pages() -> None:
    text = f"Bearer {BODY * 50}"
    assert redact_edges(text[:10], text[10:20], text[20:]) == MARK


@pytest.mark.parametrize("text", HARMLESS)
def test_cut_text_without_a_key_is_unchanged(text: str) -> None:
    for cut in range(len(text)):
        assert redact_edges(text[:cut], text[cut:], "") == text[cut:]
        assert redact_edges("", text[:cut], text[cut:]) == text[:cut]


def test_passwords_in_the_leads_environment_are_recognized_by_their_variables_names() -> None:
    environment = {
        "API_KEY": "first-secret",
        "my_token": "second secret",
        "DB_PASSWORD": "third/secret",
        "APP_SECRET": 'with"quote',
        "SHORT_KEY": "1234567",
        "KEYBOARD": "qwertyuiop",
    }
    secrets = secrets_of(environment)
    assert secrets == {"first-secret", "second secret", "third/secret", 'with"quote'}
    text = f"{' '.join(environment.values())} {json.dumps(environment['APP_SECRET'])}"
    assert redact(text, secrets) == f'{MARK} {MARK} {MARK} {MARK} 1234567 qwertyuiop "{MARK}"'


def test_a_secret_shorter_than_the_mark_gets_a_shorter_mark() -> None:
    assert redact("=12345678=", {"12345678"}) == "=[hidden]="


SECRETS = st.frozensets(st.text(LETTERS + "-_./+", min_size=8, max_size=40), max_size=4)
PIECES = st.one_of(
    st.sampled_from(
        [*KEYS, PEM, PEM[:60], PEM[70:], *HARMLESS, "Bearer ", "sk-", "-----", "\\", '"', "\n", "é", "\x1b"]
    ),
    st.text(max_size=30),
)


@st.composite
def texts(draw: st.DrawFn) -> tuple[str, frozenset[str]]:
    """Return a text that contains keys and secrets, and the secrets."""
    secrets = draw(SECRETS)
    pieces = st.one_of(PIECES, st.sampled_from(sorted(secrets))) if secrets else PIECES
    return "".join(draw(st.lists(pieces, max_size=12))), secrets


@fuzzed(300)
@given(texts())
def test_redaction_never_grows_the_text_leaves_no_secret_and_is_idempotent(drawn: tuple[str, frozenset[str]]) -> None:
    text, secrets = drawn
    once = redact(text, secrets)
    assert len(once) <= len(text)
    assert len(json.dumps(once)) <= len(json.dumps(text))
    assert not [secret for secret in secrets if secret in once]
    assert redact(once, secrets) == once


@fuzzed(300)
@given(texts(), st.booleans())
def test_redacted_json_keeps_its_shape(drawn: tuple[str, frozenset[str]], ascii_only: bool) -> None:
    text, secrets = drawn
    line = json.dumps({"type": "said", "text": text, "more": [text, {"deep": text}]}, ensure_ascii=ascii_only)
    found = json.loads(redact(line, secrets))
    assert (list(found), len(found["more"])) == (["type", "text", "more"], 2)
