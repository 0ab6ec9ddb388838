"""On which line each key of a TOML text stands."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sokovan.toml_lines import line_of_error, lines_of

TEXT = '''\
# a file
name = "x"  # = 1

"a.b" . 'c#' = 1
script = """
key = 1
[table]
\\""" """""
raw = \'\'\'
'"]
\'\'\'
list = [ # of [two
  "one]",

  [1, 2], { k = 1, l.m = "}" },
]
[env] # the environment
A = "1"
"B C" = 2
[[many]]
x = 1979-05-27T07:32:00Z
[[many]]
x = 1
[many.sub]
y = 0x1F
[ "quoted table" . z ]
w = false
'''


def test_every_kind_of_key_and_value_is_found():
    tomllib.loads(TEXT)

    assert lines_of(TEXT) == {
        ("name",): 2,
        ("a.b",): 4,
        ("a.b", "c#"): 4,
        ("script",): 5,
        ("raw",): 9,
        ("list",): 12,
        ("list", 0): 13,
        ("list", 1): 15,
        ("list", 1, 0): 15,
        ("list", 1, 1): 15,
        ("list", 2): 15,
        ("list", 2, "k"): 15,
        ("list", 2, "l"): 15,
        ("list", 2, "l", "m"): 15,
        ("env",): 17,
        ("env", "A"): 18,
        ("env", "B C"): 19,
        ("many",): 20,
        ("many", 0): 20,
        ("many", 0, "x"): 21,
        ("many", 1): 22,
        ("many", 1, "x"): 23,
        ("many", 1, "sub"): 24,
        ("many", 1, "sub", "y"): 25,
        ("quoted table",): 26,
        ("quoted table", "z"): 26,
        ("quoted table", "z", "w"): 27,
    }
    assert lines_of(TEXT.replace("\n", "\r\n")) == lines_of(TEXT)


def test_nothing_stands_nowhere():
    assert lines_of("") == lines_of("\n# only this") == {}


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("a = 1\nb =\nc = 2\n", 2, "Invalid value (column 4)"),
        ("a = 1\na = 2\n", 2, "Cannot overwrite a value (column 6)"),
        ('a = 1\nb = """\nmore\n', 3, "Unterminated string"),
        ("=", 1, "Invalid statement (column 1)"),
    ],
)
def test_what_is_no_toml_has_a_line(text, line, said):
    with pytest.raises(tomllib.TOMLDecodeError) as caught:
        tomllib.loads(text)

    assert line_of_error(caught.value, text) == (line, said)


KEYS = st.sampled_from(["a", "b-1", '"c.d"', "'e f'", '"#\\""', "a.g", "a . 'h]'"])
SCALARS = st.sampled_from(
    ["1", "-0.5", "true", "07:32:00", '"# [x]"', "'\\'", '"""\n[x]\n"""', "'''\na = 1'''", '""""""']
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: "[\n" + ", # ]\n ".join(items) + "\n]"),
        st.lists(st.tuples(KEYS, inner), max_size=2).map(
            lambda pairs: "{" + ", ".join(f"{key} = {value}" for key, value in pairs) + "}"
        ),
    ),
    max_leaves=6,
)
PARTS = st.one_of(
    st.tuples(KEYS, VALUES).map(lambda pair: f"{pair[0]} = {pair[1]}"),
    KEYS.map(lambda key: f"[{key}]"),
    KEYS.map(lambda key: f"[[x.{key}]] # more"),
    st.sampled_from(["", "  # nothing = 1"]),
)


def paths(value, path=()):
    """Every key and every item of what was read."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in pairs:
        yield (*path, key)
        if isinstance(inner, dict | list):
            yield from paths(inner, (*path, key))


@given(st.lists(PARTS, max_size=8))
def test_what_is_read_is_found_and_nothing_else(parts):
    text = ""
    begins = {}
    for part in parts:  # keep what TOML allows at this place
        try:
            read = tomllib.loads(f"{text}{part}\n")
        except tomllib.TOMLDecodeError:
            continue
        for path in set(paths(read)) - begins.keys():
            begins[path] = text.count("\n") + 1, (text + part).count("\n") + 1
        text = f"{text}{part}\n"

    found = lines_of(text)

    assert found.keys() == set(paths(tomllib.loads(text)))
    for path, line in found.items():
        first, last = begins[path]
        assert first <= line <= last
