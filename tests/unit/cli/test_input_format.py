"""The verbs of `produce --template`: what is read, whatever pieces the input comes in."""

import json
import sys

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from corelane.wire.records import Record
from corelane_cli.input_format import Fields, InputFormat
from corelane_cli.input_source import InputError, InputSource
from corelane_cli.json_text import compact
from corelane_cli.layout import FormatError
from corelane_cli.template import compile_template


def read_all(template: str, data: bytes, piece_bytes: int = sys.maxsize) -> list[Fields]:
    """Read *data*, which arrives in pieces."""
    form = InputFormat(template)
    at = 0

    async def read() -> bytes:
        nonlocal at
        await trio.lowlevel.checkpoint()
        piece = data[at : at + piece_bytes]
        at += len(piece)
        return piece

    async def conversation() -> list[Fields]:
        source = InputSource(read)
        found = []
        while fields := await form.read(source):
            found.append(fields)
        assert source.position == len(data)
        return found

    return trio.run(conversation)


def texts(fields: Fields) -> list[bytes | None]:
    """Return key and value, as far as they were read."""
    return [fields.texts[letter] for letter in "tkv" if letter in fields.texts]


@pytest.mark.parametrize("piece_bytes", [1, 3, sys.maxsize])
@pytest.mark.parametrize(
    ("template", "data", "records"),
    [
        ("%v\\n", b"a\nb c\n\nlast", [[b"a"], [b"b c"], [b""], [b"last"]]),
        ("%k %v\\n", b"k1 v1\nk2 v 2\n", [[b"k1", b"v1"], [b"k2", b"v 2"]]),
        ("%k::%v;;", b"a:b::c;d;;e::f", [[b"a:b", b"c;d"], [b"e", b"f"]]),
        ("%T{4}%K{4}%V{4}%t%k%v", b"tttkKEYvVALUe", None),
        ("%T{4}%K{3}%V{2}%t%k%v", b"topikeyvatop2ke2v2", [[b"topi", b"key", b"va"],
                                                          [b"top2", b"ke2", b"v2"]]),
        ("%K{big16} foo %k", b"\x00\x02 foo ab\x00\x01 foo c", [[b"ab"], [b"c"]]),
        ("%v{re#...?#}\\n", b"abc\nde\n", [[b"abc"], [b"de"]]),
        ("%k{re[\\d+]}%v\\n", b"12ab\n3c\n", [[b"12", b"ab"], [b"3", b"c"]]),
        ("%k %v{json}\\n", b'a {"x": [1, "} \\" "]}\nb "q"\nc 1.50',
         [[b"a", b'{"x":[1,"} \\" "]}'], [b"b", b'"q"'], [b"c", b"1.50"]]),
        ("%v{json}", b' {"a": 1}\n{"b" : 2}', [[b'{"a":1}'], [b'{"b":2}']]),
        ("%v{hex}\\n", b"6162\n63\n", [[b"ab"], [b"c"]]),
        ("%V{6}%v{hex}", b"666f6f", [[b"foo"]]),
        ("%k{base64},%v{base64raw}\\n", b"YQ==,YQ\n", [[b"a", b"a"]]),
        ("%V %v\\n", b"3 a\nb\n-1 \n0 \n", [[b"a\nb"], [None], [b""]]),
        ("%V{big32}%v", b"\xff\xff\xff\xff\x00\x00\x00\x01x", [[None], [b"x"]]),
        ("%V{byte}%v", b"\xff" + b"y" * 255, [[b"y" * 255]]),
        ("%V{hex4}%v%K{little16}%k", b"2ab\x01\x00k", [[b"k", b"ab"]]),
        ("%v", b"all\nof it", [[b"all\nof it"]]),
        ("100%% %v%}", b"100% a}100% b}", [[b"a"], [b"b"]]),
        ("%v\\n", b"", []),
    ],
)  # fmt: skip
def test_records_are_read(
    template: str, data: bytes, records: list[list[bytes]] | None, piece_bytes: int
) -> None:
    if records is None:  # a size too many for what is there
        with pytest.raises(InputError):
            read_all(template, data, piece_bytes)
        return
    assert [*map(texts, read_all(template, data, piece_bytes))] == records


def test_a_long_input_keeps_its_place() -> None:
    data = b"".join(b"%d %s\n" % (number, b"x" * 1000) for number in range(3000))
    found = read_all("%k %v\\n", data, 100_000)
    assert [each.texts["k"] for each in found] == [b"%d" % number for number in range(3000)]


@pytest.mark.parametrize("piece_bytes", [1, sys.maxsize])
def test_headers_and_numbers_are_read(piece_bytes: int) -> None:
    (fields,) = read_all("%H{2}%h{ %k=%v }%p{bool} %d %o\\n", b" a=1  b= true 17 5\n", piece_bytes)
    assert fields.headers == [("a", b"1"), ("b", b"")]
    assert (fields.numbers["p"], fields.numbers["d"], fields.numbers["o"]) == (1, 17, 5)
    (fields,) = read_all("%H %h{%K{byte}%k%V{big16}%v}%v\\n", b"1 \x01a\xff\xffx\n", piece_bytes)
    assert fields.headers == [("a", None)]


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("", "the format is empty"),
        ("%p\\n", "it reads none of %k"),
        ("%q", "%q at character 1: it is not known here; there are %t"),
        ("%k%v\\n", "%k at character 1: nothing says where it ends"),
        ("%v %v", "%v at character 4: it stands there twice"),
        ("%v %V", "%V at character 4: a size must come before its %v"),
        ("%h{%k=%v }%v", "%h{...} at character 1: %H"),
        ("%H%h%v", "%h at character 3: its form is missing"),
        ("%H%h{%k=%t }%v", "%t at character 9: it is not known here; a header has only"),
        ("%H%h{%k=%v}%v", "%v at character 9: nothing says where it ends"),
        ("%V{7x}%v", "%V{7x} at character 1: this way to read a number"),
        ("%p{3}%v", "%p{3} at character 1: only sizes"),
        ("%v{rot13}", "%v{rot13} at character 1: this way to read text"),
        ("%v{re}", "its pattern is missing"),
        ("%v{re[(]}", "the pattern is not one"),
        ("%V%v{re[a]}", "it has a pattern and a size"),
    ],
)
def test_an_error_says_which_verb_and_where(template: str, why: str) -> None:
    with pytest.raises(FormatError) as caught:
        InputFormat(template)
    assert why in str(caught.value)


@pytest.mark.parametrize(
    ("template", "data", "why"),
    [
        ("%k %v\\n", b"a b\nonly\n", "byte 4 of the input, %k: the input ends and no ' '"),
        ("%k %v\\n", b"a b\nc", "byte 4 of the input, %k"),
        ("%V{big32}%v", b"\x00\x00\x00\x09abc", "byte 4 of the input, %v: the input ends after 3"),
        ("%V{big32}%v", b"\x00\x00", "byte 0 of the input, %V{big32}: the input ends after 2 of 4"),
        ("%V{big64}%v", b"\x7f" * 8, "is beyond"),
        ("%V %v", b"x a", "byte 0 of the input, %V: there is no number"),
        ("%V %v", b"-2 a", "byte 3 of the input, %v: -2 is not a size"),
        ("%V,%v", b"1;a", "byte 1 of the input, text: there is ';' where ',' must be"),
        ("%V,%v", b"1", "byte 1 of the input, text: the input ends with ''"),
        ("%V{hex8}%v", b"zz", "are not hexadecimal digits"),
        ("%v{hex}\\n", b"6x\n", "byte 0 of the input, %v{hex}: b'6x' cannot be decoded"),
        ("%v{base64}\\n", b"*\n", "cannot be decoded"),
        ("%v{json}\\n", b"{1}\n", "it is not JSON"),
        ("%v{json}\\n", b'{"a": "b', "the input ends inside of it"),
        ("%v{re[\\d+]}\\n", b"x\n", "does not match"),
        ("%H %h{%k=%v }%v\\n", b"2 a=1 b", "byte 6 of the input, %k: the input ends"),
        ("%H %h{%k=%v }%v\\n", b"999999999 a", "is not a number of headers"),
        ("%H{1}%h{%k=%v }%v\\n", b"\xff=1 a\n", "is not UTF-8"),
        ("%v{re[x*]}", b"y", "the format matches nothing there for ever"),
    ],
)
def test_input_that_does_not_fit_is_told_with_its_place(
    template: str, data: bytes, why: str
) -> None:
    with pytest.raises(InputError) as caught:
        read_all(template, data)
    assert why in str(caught.value)


OPTIONAL = st.none() | st.binary(max_size=20)
HEADERS = st.lists(st.tuples(st.text(max_size=5), OPTIONAL), max_size=3)


@given(st.lists(st.tuples(OPTIONAL, OPTIONAL, HEADERS), max_size=4), st.integers(1, 50))
def test_what_consume_prints_by_size_produce_reads(
    rows: list[tuple[bytes | None, bytes | None, list[tuple[str, bytes | None]]]], piece_bytes: int
) -> None:
    form = "%K{big32}%V{hex16}%H{byte}%h{%K{little16}%V{big64}%k%v}%k%v"
    printed = compile_template(form)
    data = b"".join(printed(Record("t", 0, 0, 0, key, value, (*h,))) for key, value, h in rows)
    read = read_all(form, data, piece_bytes)
    assert [(each.texts["k"], each.texts["v"], each.headers) for each in read] == rows


JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(JSON, st.sampled_from([None, 1]))
def test_compact_json_is_the_same_value(value: object, indent: int | None) -> None:
    data = json.dumps(value, indent=indent).encode()
    short = json.dumps(value, separators=(",", ":")).encode()
    assert compact(data) == short
    (fields,) = read_all("%v{json}", data, 7)
    assert fields.texts["v"] == short
