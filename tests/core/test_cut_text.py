from forkjoin.core.cut_text import cut_text


def test_a_short_text_is_not_cut() -> None:
    assert cut_text("123456", 4, 2) == "123456"


def test_a_long_text_keeps_its_beginning_and_its_end() -> None:
    assert cut_text("123456789", 4, 2) == "1234\n[cut: 3 more characters]\n89"
    assert cut_text("123456789", 4) == "1234\n[cut: 5 more characters]"
    assert cut_text("123456789", 0, 2) == "[cut: 7 more characters]\n89"


def test_the_mark_counts_what_an_earlier_cut_removed_and_says_where_the_rest_is() -> None:
    assert (
        cut_text("123456789", 2, hint="read_log has all", missing=5)
        == "12\n[cut: 12 more characters; read_log has all]"
    )


def test_the_mark_is_not_quoted_with_the_text() -> None:
    assert cut_text("123456789", 4, 2, show=lambda part: f"> {part}") == "> 1234\n[cut: 3 more characters]\n> 89"
    assert cut_text("123", 4, 2, show=lambda part: f"> {part}") == "> 123"
