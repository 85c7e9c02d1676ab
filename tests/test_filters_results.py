"""The Authentication-Results field: what we say, and who else says that he is we."""

from email import message_from_bytes
from email.policy import SMTP

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from smtpserv.filters.results import Result, claims, field_value
from smtpserv.header import Header, make_field
from smtpserv.message import Content
from tests.fuzz import examples

ODD = st.text('()<>;=\\"\r\n\t\0\x7f a1.@:\u00e4\u2028')


class FieldTests(SynchronousTestCase):
    """Ours."""

    def test_whole(self) -> None:
        """The field as a reader sees it."""
        results = [
            Result("spf", "pass", (("smtp.mailfrom", "a.example"),)),
            Result("dkim", "fail", (("header.d", "a.example"), ("header.b", "ab/+cd=="))),
            Result("arc", "none"),
        ]
        self.assertEqual(
            field_value("mx.example", results).split("\r\n\t"),
            [
                "mx.example; spf=pass smtp.mailfrom=a.example;",
                'dkim=fail header.d=a.example header.b="ab/+cd=="; arc=none',
            ],
        )
        self.assertEqual(field_value("[192.0.2.1]", []), '"[192.0.2.1]"; none')

    @given(st.lists(st.tuples(st.sampled_from(["smtp.mailfrom", "header.d"]), ODD), max_size=4), ODD)
    @examples(100)
    def test_hostile_values(self, properties: list[tuple[str, str]], hostname: str) -> None:
        """Whatever was checked, it stays one field of ASCII, and our name is where it belongs."""
        hostname = hostname.strip() or "mx.example"
        field = make_field("X", field_value(hostname, [Result("spf", "none", tuple(properties))]))
        self.assertTrue(field.octets.isascii())
        header = Header.of(Content(field.octets + b"A: b\r\n\r\n"))
        self.assertEqual([each.name for each in header.fields], [b"x", b"a"])
        self.assertEqual(message_from_bytes(header.octets, policy=SMTP).keys(), ["X", "A"])
        if hostname.isascii() and hostname.isprintable():
            self.assertTrue(claims(field.text, hostname))


class ClaimTests(SynchronousTestCase):
    """Others'."""

    def test_ours(self) -> None:
        """Our name in every form in which a reader might take it for ours."""
        for value in (
            "mx.example; dkim=pass",
            "mx.example;dkim=pass",
            "MX.Example; dkim=pass",
            "mx.example.; dkim=pass",
            "mx.example 1; dkim=pass",
            "mx.example\t(c) 1; dkim=pass",
            "mx.example(c); dkim=pass",
            '"mx.example"; dkim=pass',
            '"mx\\.exa"mple; dkim=pass',
            "(c) mx.example; dkim=pass",
            "(a (b) \\) c)mx.example; dkim=pass",
            '(") mx.example; x=(")',
            "mx.example",
            "  mx.example  ",
        ):
            self.assertTrue(claims(value, "mx.example"), value)

    def test_not_ours(self) -> None:
        """Another's name, in comments ours."""
        for value in (
            "mx2.example; a=b",
            "a.mx.example; a=b",
            "(mx.example) other; a=b",
            "x; mx.example",
            "",
            "x",
        ):
            self.assertFalse(claims(value, "mx.example"), value)

    def test_hidden(self) -> None:
        """A name that does not come for pages is nobody's we would trust."""
        for value in ("(" * 5000 + "mx.example", " " * 5000 + "mx.example", "()" * 5000):
            self.assertTrue(claims(value, "mx.example"))

    @given(ODD, ODD)
    @examples(100)
    def test_any_text(self, value: str, hostname: str) -> None:
        """Of any text it can be told."""
        claims(value, hostname)
