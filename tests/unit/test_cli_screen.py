"""What is fitted to a terminal fits it, and loses nothing that it need not lose."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sokovan.cli.screen import cells, cut, fold, pairs, table


class Screen(io.StringIO):
    def isatty(self):
        return True


WORDS = st.text(st.sampled_from("ab 서é̈-"), max_size=40)


@given(WORDS, st.integers(2, 30))
def test_what_is_cut_fits_and_what_fits_is_whole(text, width):
    assert cells(cut(text, width)) <= width
    assert (cut(text, width) == text) == (cells(text) <= width)


@given(WORDS, st.integers(4, 30), st.sampled_from(["", "  "]))
def test_folding_loses_no_character(text, width, indent):
    lines = [*fold(text, width, indent=indent)]

    assert all(cells(line) <= width for line in lines if line.strip())
    joined = "".join(line.removeprefix(indent) if n else line for n, line in enumerate(lines))
    assert joined.replace(" ", "") == text.replace(" ", "")


def test_words_stay_whole_where_they_can():
    assert [*fold("  waits for 4 cores: the agent", 14, indent="    ")] == [
        "  waits for 4",
        "    cores: the",
        "    agent",
    ]
    assert [*fold("abcdefghij", 4)] == ["abcd", "efgh", "ij"]
    assert [*fold("", 4)] == [""]


ROWS = [
    [("xztbvf33", ""), ("a name that is quite long", ""), ("RUNNING", "green"), ("4", "")],
    [("y", ""), ("서버", ""), ("PENDING", ""), ("", "")],
]


@pytest.mark.parametrize(
    ("columns", "lines"),
    [
        (
            80,
            [
                "ID        NAME                       STATUS   CPU",
                "xztbvf33  a name that is quite long  RUNNING  4",
                "y         서버                       PENDING",
            ],
        ),
        (
            42,
            [
                "ID        NAME                STATUS   CPU",
                "xztbvf33  a name that is qu…  RUNNING  4",
                "y         서버                PENDING",
            ],
        ),
        (
            39,
            [
                "ID        NAME                  STATUS",
                "xztbvf33  a name that is quit…  RUNNING",
                "y         서버                  PENDING",
            ],
        ),
        (20, ["ID        STATUS", "xztbvf33  RUNNING", "y         PENDING"]),
    ],
)
def test_a_table_is_cut_first_and_then_does_without_what_matters_least(monkeypatch, columns, lines):
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("NO_COLOR", "1")

    headers = ["ID", "NAME", "STATUS", "CPU"]
    assert [*table(headers, ROWS, Screen(), least=["CPU", "NAME"])] == lines


def test_values_are_folded_beside_their_names_or_below_them(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    rows = [[("id", ""), ("x", "")], [("waits", ""), ("for 4 cores of the agent", "")]]

    monkeypatch.setenv("COLUMNS", "25")
    assert [*pairs(rows, Screen())] == ["id     x", "waits  for 4 cores of the", "       agent"]
    monkeypatch.setenv("COLUMNS", "20")
    assert [*pairs(rows, Screen())] == ["id", "  x", "waits", "  for 4 cores of the", "  agent"]


def test_colours_are_left_out_where_nobody_wants_or_sees_them(monkeypatch):
    for name, value, coloured in [("TERM", "xterm", True), ("TERM", "dumb", False)]:
        monkeypatch.delenv("NO_COLOR", raising=False)
        monkeypatch.setenv(name, value)
        assert ("\x1b[32m" in "".join(table(["A"], [[("b", "green")]], Screen()))) == coloured
    assert "\x1b" not in "".join(table(["A"], [[("b", "green")]], io.StringIO()))
