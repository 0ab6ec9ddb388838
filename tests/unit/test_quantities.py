"""What people type for amounts, and what they read."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sokovan.domain.errors import InvalidRequestError
from sokovan.domain.quantities import (
    format_duration,
    format_milli,
    format_size,
    parse_duration,
    parse_milli,
    parse_size,
)

K, M, G, T, P = (1024**n for n in range(1, 6))
LARGEST = 2**53


@pytest.mark.parametrize(
    ("text", "milli"),
    [
        ("2", 2000),
        ("0.5", 500),
        (".25", 250),
        ("3.", 3000),
        (" 1 ", 1000),
        ("0", 0),
        ("0.001", 1),
        ("1.5000000000000000000000000000000000000", 1500),
        ("007", 7000),
        (str(LARGEST), LARGEST * 1000),
    ],
)
def test_an_amount_is_read_in_thousandths(text, milli):
    assert parse_milli(text, field="cpu") == milli


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", ".", "-1", "+1", "1,5", "nan", "inf", "1e3", "1_000", "1/2", "٣", "two"),
        *("1.2.3", f"{LARGEST}.001", str(LARGEST + 1), "9" * 5000),
    ],
)
def test_what_is_no_amount_is_refused_with_the_field_and_the_fix(text):
    with pytest.raises(InvalidRequestError, match="is not an amount; write a number") as refused:
        parse_milli(text, field="cpu")

    assert refused.value.field == "cpu"


@pytest.mark.parametrize("text", ["0.0001", "1.0005", "1." + "0" * 40 + "1", "0." + "9" * 40])
def test_an_amount_finer_than_a_thousandth_is_refused(text):
    with pytest.raises(InvalidRequestError, match="finer than one thousandth"):
        parse_milli(text, field="gpu")


@given(st.integers(0, LARGEST * 1000))
def test_an_amount_reads_back_as_it_was_written(milli):
    assert parse_milli(format_milli(milli), field="cpu") == milli


@given(st.lists(st.integers(0, 10**9), max_size=5))
def test_amounts_add_up_exactly(parts):
    read = [parse_milli(format_milli(part), field="cpu") for part in parts]

    assert sum(read) == parse_milli(format_milli(sum(parts)), field="cpu")


def test_a_tenth_and_two_tenths_are_three_tenths():
    tenth, two, three = (parse_milli(text, field="gpu") for text in ("0.1", "0.2", "0.3"))

    assert tenth + two == three


@pytest.mark.parametrize(
    ("milli", "text"), [(0, "0"), (500, "0.5"), (2000, "2"), (10_000, "10"), (1, "0.001")]
)
def test_thousandths_are_written_as_people_do(milli, text):
    assert format_milli(milli) == text


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("1", 1),
        ("12B", 12),
        ("512M", 512 * M),
        ("4G", 4 * G),
        ("4g", 4 * G),
        ("4 GiB", 4 * G),
        ("4Gi", 4 * G),
        ("4GB", 4 * 10**9),
        ("1.5K", 1536),
        ("0.3K", 307),
        ("2T", 2 * T),
        ("8P", 8 * P),
    ],
)
def test_a_size_is_read_in_bytes(text, size):
    assert parse_size(text, field="mem") == size


@pytest.mark.parametrize(
    "text",
    ["", "G", "-1G", "4X", "4GG", "1e3", "1.G", "4 G B", "٤G", "9P", "9" * 5000, "1" + "0" * 16],
)
def test_what_is_no_size_is_refused_with_the_field_and_the_fix(text):
    with pytest.raises(InvalidRequestError, match="such as 512M or 4G") as refused:
        parse_size(text, field="mem")

    assert refused.value.field == "mem"


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0B"),
        (1023, "1023B"),
        (1024, "1K"),
        (1536, "1.5K"),
        (M - 1, "1M"),
        (G, "1G"),
        (7 * G + G // 2, "7.5G"),
        (1023 * G, "1023G"),
        (T - 1, "1T"),
        (P, "1P"),
        (5000 * P, "5000P"),
    ],
)
def test_a_size_is_written_with_a_fitting_unit(size, text):
    assert format_size(size) == text


@given(st.integers(0, LARGEST))
def test_a_size_reads_back_as_nearly_what_it_was(size):
    assert parse_size(format_size(size), field="mem") == pytest.approx(size, rel=0.051)


@given(st.integers(0, 1023), st.sampled_from("BKMGT"))
def test_a_whole_size_reads_back_exactly(number, unit):
    size = parse_size(f"{number}{unit}", field="mem")

    assert parse_size(format_size(size), field="mem") == size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("90", 90),
        ("90s", 90),
        ("1.5", 1.5),
        ("15m", 900),
        ("1h30m", 5400),
        ("1.5h", 5400),
        ("2d", 172_800),
        ("1w", 604_800),
        (" 2d ", 172_800),
        ("2:30", 150),
        ("01:30:00", 5400),
        ("1-12:00:00", 129_600),
        ("1-12:30", 131_400),
        ("1-00:00:05", 86_405),
    ],
)
def test_a_duration_is_read_in_seconds(text, seconds):
    assert parse_duration(text, field="time") == seconds


@pytest.mark.parametrize(
    "text",
    [
        *("", "s", "-1", "1x", "1h 30m", "1:2:3:4", "1-", "inf", "1.5.5s", "٩٠", "2d-1", "1:234"),
        *("9" * 5000, "9" * 5000 + ":00", "10000000001s", "9999999999w"),
    ],
)
def test_what_is_no_duration_is_refused_with_the_field_and_the_fix(text):
    with pytest.raises(InvalidRequestError, match="is not a duration; write 90s") as refused:
        parse_duration(text, field="time")

    assert refused.value.field == "time"


def test_a_duration_of_several_parts_names_each_unit():
    with pytest.raises(InvalidRequestError, match="leaves out a unit"):
        parse_duration("1h30", field="time")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.25, "0.2s"),
        (5, "5s"),
        (9.5, "9.5s"),
        (12.7, "12s"),
        (185, "3m05s"),
        (3600, "1h00m"),
        (5400, "1h30m"),
        (90_000, "1d01h"),
    ],
)
def test_a_duration_is_written_with_at_most_two_units(seconds, text):
    assert format_duration(seconds) == text


@given(st.floats(0, 10**9))
def test_a_duration_reads_back_as_nearly_what_it_was(seconds):
    read = parse_duration(format_duration(seconds), field="time")

    units = {60: 1, 3600: 1, 86_400: 60, math.inf: 3600}
    assert abs(read - seconds) <= next(unit for below, unit in units.items() if seconds < below)
