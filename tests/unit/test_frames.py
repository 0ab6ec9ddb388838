"""Lines of JSON on the agents' socket: how they are written, and cut."""

import json

import pytest

from sokovan.agent import frames
from sokovan.agent.frames import PART_BYTES_MAX, encode, parts


def test_a_frame_is_one_line_that_is_read_as_it_was_written():
    frame = {"op": "é\n\u2028😀", "text": "\udcff\x01"}

    assert b"\n" not in encode(frame)
    assert json.loads(encode(frame)) == frame
    assert len(encode("é" * 100)) == 202


def test_what_fits_into_one_frame_is_not_cut():
    assert list(parts([1, 2, 3])) == [[1, 2, 3]]
    assert list(parts([])) == []


def test_a_part_has_no_more_than_it_may_have():
    assert list(parts([1, 2, 3, 4, 5], count_max=2)) == [[1, 2], [3, 4], [5]]


@pytest.mark.parametrize("letter", ["a", "é", "\x01", "😀"])
def test_a_part_is_no_longer_than_it_may_be_and_nothing_is_left_out(letter, monkeypatch):
    monkeypatch.setattr(frames, "PART_BYTES_MAX", 40)
    items = [letter * length for length in (1, 3, 16, 2, 2, 0, 16, 16)]

    cut = list(parts(items))

    assert [item for part in cut for item in part] == items
    assert all(len(part) == 1 or len(encode(part)) <= 41 for part in cut)
    assert len(cut) > 1


def test_the_largest_order_that_is_accepted_fits_into_a_part():
    body = {"command": ["x"], "env": {f"X{i}": "\x01" * 100_000 for i in range(19)}}

    assert len(encode(body)) > 11_000_000
    assert len(encode(body)) + 1_000_000 < PART_BYTES_MAX
