"""Lists of words, and the one that was meant."""

from qanat.config.words import nearest, words

__all__: list[str] = []


def test_words() -> None:
    assert (words(["a"]), words(["a", "b"]), words(["a", "b", "c"])) == ("a", "a or b", "a, b or c")
    assert words(["a", "b"], "and") == "a and b"


def test_nearest() -> None:
    assert nearest("TCP-Timeout", ["tcp_timeout", "udp_timeout"]) == "tcp_timeout"
    assert nearest("zzz", ["tcp_timeout"]) is None
    assert nearest("x" * 100_000, ["tcp_timeout"]) is None
