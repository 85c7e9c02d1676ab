"""Which domain names are the same, and which only look it."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from smtpserv import domain
from smtpserv.domain import Domains, canonical
from tests.fuzz import examples


class CanonicalTests(SynchronousTestCase):
    """The one form of a name that is compared."""

    def test_same(self) -> None:
        """Case, a dot at the end, and the form of a label make no difference."""
        names = {
            "Example.COM": "example.com",
            "example.com.": "example.com",
            "b\u00fccher.example": "xn--bcher-kva.example",
            "B\u00dcCHER.example": "xn--bcher-kva.example",
            "bu\u0308cher.example": "xn--bcher-kva.example",
            "XN--BCHER-KVA.example": "xn--bcher-kva.example",
            "fa\u00df.example": "xn--fa-hia.example",
            "_dmarc.a-b.example": "_dmarc.a-b.example",
        }
        self.assertEqual({name: canonical(name) for name in names}, names)

    def test_none(self) -> None:
        """What is no domain name has no such form."""
        for name in (
            "",
            ".",
            "a..b",
            ".a",
            "a..",
            "-a",
            "a-",
            "[192.0.2.1]",
            "[IPv6:::1]",
            "a b",
            "a@b",
            "a\n",
            "*",
        ):
            self.assertIsNone(canonical(name), name)

    def test_look_alikes(self) -> None:
        """No letter outside ASCII passes for one inside."""
        for name in (
            "ex\u0430mple.com",  # Cyrillic a
            "\uff45xample.com",  # fullwidth e
            "example\u3002com",  # ideographic full stop
            "example\uff0ecom",  # fullwidth full stop
            "example\u2024com",  # one dot leader
            "exam\u00adple.com",  # soft hyphen
            "exam\u200bple.com",  # zero width space
            "e\u1d31xample.com",
            "\u2147xample.com",  # double-struck e
            "exampl\u0435.com",
        ):
            self.assertNotEqual(canonical(name), "example.com", name)
        self.assertNotEqual(canonical("\u212aernel.example"), "kernel.example")  # Kelvin sign
        self.assertNotEqual(canonical("ma\u017fk.example"), "mask.example")  # long s

    def test_without_idna(self) -> None:
        """Where IDNA is not installed, what is ASCII is still compared."""
        self.patch(domain, "idna", None)
        self.assertEqual(canonical("XN--BCHER-KVA.example"), "xn--bcher-kva.example")
        self.assertIsNone(canonical("b\u00fccher.example"))

    @given(st.text("aZ0-._[@ \u00fc\u00df\u212a\uff45\u0301\u200d\u3002\U0001f4e7", max_size=12))
    @examples(200)
    def test_anything(self, name: str) -> None:
        """Whatever it is given, its form is ASCII in lower case, and its own form."""
        form = canonical(name)
        if form is not None:
            self.assertTrue(form.isascii() and form == form.lower())
            self.assertEqual(canonical(form), form)
            self.assertEqual("xn--" in form, "xn--" in name.lower() or not name.isascii())


class DomainsTests(SynchronousTestCase):
    """Lists of domains."""

    def test_members(self) -> None:
        """A name is in it in any of its forms; what is below or above it is not."""
        domains = Domains.parse("Example.com, b\u00fccher.example")
        for name in ("example.com", "EXAMPLE.COM.", "xn--bcher-kva.example", "B\u00fccher.example"):
            self.assertIn(name, domains)
        for name in (
            "",
            "com",
            "a.example.com",
            "example.com.org",
            "example.comm",
            "[192.0.2.1]",
            "example.com..",
        ):
            self.assertNotIn(name, domains)

    def test_nothing(self) -> None:
        """An empty list holds no name, not even an empty one or one that is none."""
        for name in ("", "example.com", "[192.0.2.1]"):
            self.assertNotIn(name, Domains.parse(""))

    def test_wrong(self) -> None:
        """What is no domain name is named."""
        for written in ("*", "a..b", "[192.0.2.1]", "a b", "@a"):
            error = self.assertRaises(ValueError, Domains.parse, f"example.com,{written}")
            self.assertIn(written, str(error))
