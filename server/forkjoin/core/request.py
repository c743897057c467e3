"""Requests: the questions and permissions that agents wait for."""

from dataclasses import dataclass
from typing import Literal

#: What an agent asks: for words, or whether it may do something.
RequestKind = Literal["question", "permission"]
#: What is answered to the second.
Decision = Literal["allow", "deny"]


@dataclass(frozen=True, slots=True)
class Request:
    """A question or a request for permission that an agent waits for. The first answer counts."""

    number: int
    agent: int
    kind: RequestKind
    text: str
    fallback: str  #: what counts where nobody has answered until it expires
    asked: float  #: seconds since the epoch, as are the next two
    expires: float
    closed: float | None = None  #: when it was answered, expired or was withdrawn; none while it is open
    said: str = ""  #: the answer; to a permission: `allow` or `deny`; '' where it was withdrawn
    reason: str = ""
    answered_by: str = ""  #: the lead, or the person; '' where nobody has

    @property
    def id(self) -> str:
        return f"r{self.number}"

    @property
    def outcome(self) -> str:
        """How the request was closed, to end a sentence."""
        if not self.said:
            return "withdrawn: its agent ended, was stopped, or waits for it no more"
        why = f" ({self.reason})" if self.reason else ""
        return f"answered by {self.answered_by or 'nobody in time'}: {self.said}{why}"
