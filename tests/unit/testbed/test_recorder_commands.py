"""What the services understand, and that anything else is no command."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.recorder.commands import Command, parse


@pytest.mark.parametrize(
    ("line", "command"),
    [
        (b"echo a1\n", Command("echo", 0, "a1")),
        (b"echo a1 17 more words", Command("echo", 0, "a1")),
        (b"whoami\n", Command("whoami", 0, "")),
        (b"source 20000000 big\n", Command("source", 20_000_000, "big")),
        (b"sink 5 x\r\n", Command("sink", 5, "x")),
        (b"push 100 p\n", Command("push", 100, "p")),
        (b"GET /whoami HTTP/1.1\r\n", Command("http", 0, "/whoami")),
    ],
)
def test_reads_commands(line: bytes, command: Command) -> None:
    assert parse(line) == command


@pytest.mark.parametrize(
    "line",
    [b"", b"\n", b"push\n", b"push 0 x\n", b"push -5 x\n", b"sink many x\n", b"source 99999999999 x\n", b"GET\n"],
)
def test_refuses_what_is_no_command(line: bytes) -> None:
    assert parse(line) is None


@given(st.binary(max_size=64))
def test_never_raises(line: bytes) -> None:
    parse(line)
