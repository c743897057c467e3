"""Long texts cut to a length, with a mark that says how many characters are missing."""

from collections.abc import Callable


def cut_text(
    text: str, first: int, last: int = 0, *, hint: str = "", missing: int = 0, show: Callable[[str], str] = str
) -> str:
    """Return a text with a mark in place of its middle, if the text is too long.

    The mark stands on a line of its own, and says how many characters are missing.
    A text with at most `first + last` characters is returned whole.

    Args:
        first: How many characters of the beginning to keep.
        last: How many characters of the end to keep.
        hint: Where the whole text can be read. It completes the mark.
        missing: How many characters were cut from the text by an earlier function. The mark counts them too.
        show: Makes the text for the result from each part that is kept, such as quoted lines.
    """
    more = len(text) - first - last
    if more <= 0:
        return show(text)
    mark = f"[cut: {more + missing} more characters{hint and f'; {hint}'}]"
    parts = show(text[:first]) if first else "", mark, show(text[-last:]) if last else ""
    return "\n".join(filter(None, parts))
