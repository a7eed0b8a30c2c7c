"""The verbs of `consume --template`, against what rpk documents for each."""

import pytest

from corelane.wire.records import Origin, Record
from corelane_cli.layout import FormatError
from corelane_cli.template import Surroundings, compile_template
from corelane_client.fetching import Watermarks

TIME_MS = 1_763_856_005_042  # 2025-11-23 00:00:05.042 UTC, a Sunday
ORIGIN = Origin(leader_epoch=6, attributes=0b01_0011, producer_id=1000, producer_epoch=2)
RECORD = Record(
    "t", 3, 42, TIME_MS, b"k\x00", "é".encode(), (("a", b"1"), ("b", None)), origin=ORIGIN
)
EMPTY = Record("t", 3, 42, 1700, None, None, ())


def around(topic: str, partition: int) -> Watermarks:
    assert (topic, partition) == ("t", 3)
    return Watermarks(log_start=1, last_stable=2, high_watermark=3)


@pytest.mark.parametrize(
    ("template", "printed"),
    [
        ("%t/%p@%o %d\\n", b"t/3@42 1763856005042\n"),
        ("%k=%v", b"k\x00=\xc3\xa9"),
        ("%k{hex} %v{base64} %k{base64raw} %k{base64}", b"6b00 w6k= awA awA="),
        ("%t{hex} %T", b"74 1"),
        ("%K %V %H %h", b"2 2 2 a=1,b="),
        ("%h{<%k{hex}=%v|%K %V>}", b"<61=1|1 1><62=|1 -1>"),
        ("%h{%{%k%}}", b"{a}{b}"),
        ("%h{%}%k}", b"}a}b"),
        ("100%%\\t\\x41\\\\ %{%}", b"100%\tA\\ {}"),
        ("%%{hex}", b"%{hex}"),
        ("%v {%o}", "é {42}".encode()),
        ("%e %x %y", b"6 1000 2"),
        ("%[ %| %]", b"1 2 3"),
        ("%[{hex8}%]{byte}", b"01\x03"),
        ("%o{ascii} %o{hex} %o{hex4} %o{hex8} %o{hex16}", b"42 2a a 2a 002a"),
        ("%o{hex32}%o{hex64}", b"0000002a000000000000002a"),
        ("%o{big8}%o{big16}%o{big32}", b"*\x00*\x00\x00\x00*"),
        ("%o{little16}%o{little32}%o{little8}%o{byte}", b"*\x00*\x00\x00\x00**"),
        ("%o{big64}%o{little64}", b"\x00\x00\x00\x00\x00\x00\x00**\x00\x00\x00\x00\x00\x00\x00"),
        ("%o{bool} %d{big8}", b"true \xb2"),
        ("%a{compression} %a{compression;number} %a{compression;hex8}", b"lz4 3 03"),
        ("%a{timestamp-type} %a{transactional-bit;bool} %a{control-bit}", b"0 true 0"),
        ("%d{strftime[%F %T]}", b"2025-11-23 00:00:05"),
        ("%d{strftime### [%F] ###}", b" [2025-11-23] "),
        ("%d{go##2006-01-02T15:04:05Z07:00##}", b"2025-11-23T00:00:05Z"),
        ("%d{go[Mon, 02 Jan 2006 15:04:05 MST]}", b"Sun, 23 Nov 2025 00:00:05 UTC"),
        ("%d{go[Monday January _2 3:4:5PM -0700]}", b"Sunday November 23 12:0:5AM +0000"),
        ("%d{go[05.000 05,00 05.999999 .0x]}", b"05.042 05,04 05.042 .0x"),
        ("%d{go[002 __2 06 1 15h04m 03pm]}", b"327 327 25 11 00h00m 12am"),
        ("%k{unpack[<h]} %k{unpack[>H$]} %k{unpack{cB}}", b"107 27392 k0"),
        ("%k{unpack[>I]}", b"%!I(have 2 bytes, need 4)"),
        ("%k{unpack[b$]}", b"107%!$(not end-of-input)"),
        ("%v{unpack[xbs]}", b"-61\xa9"),
        ("", b""),
    ],
)
def test_a_record_is_printed_as_asked(template: str, printed: bytes) -> None:
    assert compile_template(template, Surroundings(around))(RECORD) == printed


def test_nothing_is_printed_for_null() -> None:
    assert compile_template("[%k][%v][%h] %K %V %H")(EMPTY) == b"[][][] -1 -1 0"
    assert compile_template("%K{big32}%K{little16}")(EMPTY) == b"\xff" * 6


def test_records_are_numbered() -> None:
    numbered = compile_template("%i %i{hex8};")
    assert [numbered(EMPTY), numbered(EMPTY)] == [b"1 02;", b"3 04;"]


def test_a_time_beyond_the_calendar_is_a_number() -> None:
    late = Record("t", 0, 0, 2**62, None, None, ())
    assert compile_template("%d{strftime[%F]} %d{go[2006]}")(late) == b"%d %d" % (2**62, 2**62)


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("ab%", "the % at character 3 says nothing"),
        ("%v%q", "%q at character 3: it is not known; there are %t"),
        ("\\q", r"\q at character 1 is not known"),
        ("\\x4", r"\x at character 1 is not known"),
        ("a\\", r"\ at character 2 is not known"),
        ("%o{rot13}", "%o{rot13} at character 1: this way to print a number"),
        ("a%v{rot13}", "%v{rot13} at character 2: this way to print text"),
        ("%v{unpack[z]}", "%v{unpack} at character 1: 'z' is not known"),
        ("%v{unpack[sb]}", "nothing can follow 's'"),
        ("%v{unpack}", "this way to print text is not known"),
        ("%v{unpack[b}", "begins with [ and lacks ]"),
        ("%v{unpack[b]", "a } must follow ]"),
        ("%v{hex", "%v at character 1: its { is never closed"),
        ("%v{}", "its braces are empty"),
        ("%h{%k", "%h at character 1: its { is never closed"),
        ("%h{ %o}", "%o at character 5: a header has only"),
        ("%a", "%a at character 1: it takes one of compression"),
        ("%a{colour}", "it takes one of compression"),
        ("%a{control-bit;rot}", "this way to print a number"),
        ("%d{strftime}", "strftime[...], go[...]"),
        ("%[", "only consume knows it"),
    ],
)
def test_an_error_says_which_verb_and_where(template: str, why: str) -> None:
    with pytest.raises(FormatError) as caught:
        compile_template(template)
    assert why in str(caught.value)
