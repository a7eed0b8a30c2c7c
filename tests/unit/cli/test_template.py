"""The grammar of --template."""

import pytest

from corelane_cli.template import TemplateError, compile_template
from corelane_client.records import Record

RECORD = Record("t", 3, 42, 1700, b"k\x00", "é".encode(), (("a", b"1"), ("b", None)))
EMPTY = Record("t", 3, 42, 1700, None, None, ())


@pytest.mark.parametrize(
    ("template", "printed"),
    [
        ("%t/%p@%o %d\\n", b"t/3@42 1700\n"),
        ("%k=%v", b"k\x00=\xc3\xa9"),
        ("%k{hex} %v{base64}", b"6b00 w6k="),
        ("%K %V %H %h", b"2 2 2 a=1,b="),
        ("100%%\\t\\x41\\\\", b"100%\tA\\"),
        ("", b""),
    ],
)
def test_a_record_is_printed_as_asked(template: str, printed: bytes) -> None:
    assert compile_template(template)(RECORD) == printed


def test_nothing_is_printed_for_null() -> None:
    assert compile_template("[%k][%v][%h] %K %V %H")(EMPTY) == b"[][][] -1 -1 0"


@pytest.mark.parametrize("template", ["%", "%q", "\\q", "%o{hex}", "%v{rot13}", "a\\", "%%{hex}"])
def test_what_is_not_in_the_grammar_is_refused(template: str) -> None:
    with pytest.raises(TemplateError):
        compile_template(template)
