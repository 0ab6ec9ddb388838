"""Output beyond its bound: the beginning and the end stay, and a line says what is missing."""

import os
from pathlib import Path

import pytest

from sokovan.agent import output

KIB = 1024
BOUND = 256 * KIB


@pytest.fixture
def stream(tmp_path):
    """A stream of output, as long as no test has said anything."""
    path = tmp_path / "stdout"
    path.touch()
    return path


def say(stream: Path, text: bytes) -> None:
    with stream.open("ab") as file:
        file.write(text)


def lines(first: int, count: int) -> bytes:
    return b"".join(b"%015d\n" % number for number in range(first, first + count))


def all_of(stream: Path, piece_bytes: int = 1 << 20, offset: int = 0) -> bytes:
    said = b""
    while (chunk := output.read(str(stream), offset, piece_bytes)).data:
        said += chunk.data
        offset = chunk.offset + len(chunk.data)
    assert offset >= stream.stat().st_size
    return said


def test_what_is_within_its_bound_stays_as_it_is(stream):
    say(stream, lines(0, BOUND // 16))

    assert output.bound(str(stream), BOUND) is None
    assert all_of(stream) == lines(0, BOUND // 16)


@pytest.mark.parametrize("piece_bytes", [7, 4096, 1 << 20])
def test_the_beginning_and_the_end_stay_and_a_line_says_what_is_missing(stream, piece_bytes):
    say(stream, lines(0, 4 * BOUND // 16))
    gap = output.bound(str(stream), BOUND)
    assert gap is not None
    head, tail = all_of(stream, piece_bytes).split(gap.note())

    assert head == lines(0, BOUND // 2 // 16)
    assert lines(0, 4 * BOUND // 16).endswith(tail)
    assert len(tail) == BOUND // 4
    assert gap.note() == b"\n[sokovan: 832K of output were dropped here]\n"


def test_output_that_goes_on_stays_bounded_and_keeps_its_newest(stream):
    say(stream, lines(0, 4 * KIB))
    for part in range(1, 40):
        say(stream, lines(part * 4 * KIB, 4 * KIB))
        output.bound(str(stream), BOUND)
        said = all_of(stream)

        assert stream.stat().st_blocks * 512 <= BOUND + 8 * KIB
        assert said.startswith(lines(0, 8 * KIB))
        assert said.endswith(lines((part + 1) * 4 * KIB - 16, 16))
    assert said.count(b"were dropped here") == 1


def test_a_gap_is_not_made_again_until_there_is_too_much_again(stream):
    say(stream, lines(0, 4 * BOUND // 16))
    output.bound(str(stream), BOUND)
    say(stream, lines(0, 8))

    assert output.bound(str(stream), BOUND) is None


def test_reading_from_the_end_and_from_within_the_gap(stream):
    say(stream, lines(0, 4 * BOUND // 16))
    gap = output.bound(str(stream), BOUND)
    assert gap is not None

    assert all_of(stream, offset=-16) == lines(4 * BOUND // 16 - 1, 1)
    assert all_of(stream, offset=gap.begin + 1).startswith(gap.note())
    assert all_of(stream, offset=gap.end - 3).startswith(gap.note()[-3:])


def test_a_gap_that_was_made_and_not_written_down_is_made_again(stream, monkeypatch):
    """An agent that dies in between leaves zeros; the next one finds that there is too much."""
    say(stream, lines(0, 4 * BOUND // 16))
    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", lambda *_: (_ for _ in ()).throw(OSError("killed")))
        with pytest.raises(OSError, match="killed"):
            output.bound(str(stream), BOUND)

    assert output.bound(str(stream), BOUND) is not None
    assert b"\0" not in all_of(stream)


def test_no_file_is_no_output_to_bound(tmp_path):
    assert output.bound(str(tmp_path / "stdout"), BOUND) is None
