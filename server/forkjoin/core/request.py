"""Requests: the questions and permissions that agents wait for."""

from dataclasses import dataclass
from typing import Literal

RequestKind = Literal["question", "permission"]
#: The answer to a permission request.
Decision = Literal["allow", "deny"]


@dataclass(frozen=True, slots=True)
class Request:
    """A question or a permission request that an agent waits for. Only the first answer counts."""

    number: int
    agent: int
    kind: RequestKind
    text: str
    fallback: str  #: the answer if nobody answers before the request expires
    asked: float  #: seconds since the epoch, like `expires` and `closed`
    expires: float
    closed: float | None = None  #: when the request was answered, withdrawn or expired; None if it is open
    said: str = ""  #: the answer, for a permission a `Decision`; empty if the request was withdrawn
    reason: str = ""
    answered_by: str = ""  #: the lead or person who answered; empty if nobody did

    @property
    def id(self) -> str:
        return f"r{self.number}"

    @property
    def outcome(self) -> str:
        """How the request was closed, as the end of a sentence."""
        if not self.said:
            return "withdrawn: its agent has ended, was stopped, or no longer waits for an answer"
        why = f" ({self.reason})" if self.reason else ""
        return f"answered by {self.answered_by or 'nobody in time'}: {self.said}{why}"
