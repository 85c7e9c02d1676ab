"""Which list an address belongs to: the rules of Mailman 3 and Mailman 2."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from smtpserv.domain import canonical
from smtpserv.mailman.address import (
    EXTENSIONS,
    SUBADDRESSES,
    ListAddress,
    bare_address,
    candidates,
    is_mailman2_name,
    mailman2_candidates,
)
from tests.fuzz import examples

HOSTS = {"lists.example.org": "lists.example.org", "alias.example.org": "lists.example.org"}


def asked(mailbox: str, hosts: dict[str, str] | None = None) -> list[tuple[str, str | None]]:
    """The lists of Mailman 3 that are asked about, in their order."""
    return [(each.list_name, each.subaddress) for each in candidates(mailbox, hosts)]


def asked2(mailbox: str) -> list[tuple[str, str | None]]:
    """Those of Mailman 2."""
    return [(each.list_name, each.subaddress) for each in mailman2_candidates(mailbox)]


class MailmanTests(SynchronousTestCase):
    """Mailman 3."""

    def test_list(self) -> None:
        """A list is asked about by its address, in lower case."""
        self.assertEqual(asked("Ant@Lists.Example.ORG"), [("ant@lists.example.org", None)])

    def test_subaddresses(self) -> None:
        """Each of the eight is a list's; but first a list that is called so, whose mail it is."""
        self.assertEqual(len(SUBADDRESSES), 8)
        for each in SUBADDRESSES:
            whole = (f"ant-{each}@a.example", None)
            self.assertEqual(asked(f"ant-{each}@a.example"), [whole, ("ant@a.example", each)])
            self.assertEqual(asked(f"ANT-{each.upper()}@a.example"), [whole, ("ant@a.example", each)])

    def test_hyphens(self) -> None:
        """A name may have any number of hyphens; what stands behind the last may be a sub-address."""
        self.assertEqual(asked("ant-farm-talk@a.example"), [("ant-farm-talk@a.example", None)])
        self.assertEqual(
            asked("ant-farm-owner-request@a.example"),
            [("ant-farm-owner-request@a.example", None), ("ant-farm-owner@a.example", "request")],
        )
        self.assertEqual(asked("ant-@a.example"), [("ant-@a.example", None)])

    def test_no_name(self) -> None:
        """A sub-address of nothing is a name."""
        self.assertEqual(asked("-owner@a.example"), [("-owner@a.example", None)])
        self.assertEqual(asked("owner@a.example"), [("owner@a.example", None)])

    def test_no_subaddress(self) -> None:
        """What is none of the eight is part of the name; Mailman 2's -admin is."""
        for local_part in ("ant-foo", "ant-admin", "ant-bounce", "ant-owner-"):
            self.assertEqual(asked(f"{local_part}@a.example"), [(f"{local_part}@a.example", None)])

    def test_tokens(self) -> None:
        """What stands behind the first plus sign is no part of the name, and may be anything."""
        bounces = [("ant-bounces@a.example", None), ("ant@a.example", "bounces")]
        self.assertEqual(asked("ant-bounces+user=host.example@a.example"), bounces)
        self.assertEqual(asked("ant-bounces+0aB9+x-owner@a.example"), bounces)
        self.assertEqual(asked("ant-bounces+o'neil/x=host@a.example"), bounces)
        self.assertEqual(asked("ant+tag@a.example"), [("ant@a.example", None)])

    def test_alias_domains(self) -> None:
        """An alias domain leads to the lists of the domain it stands for; other domains to none."""
        self.assertEqual(asked("ant@Alias.example.org", HOSTS), [("ant@lists.example.org", None)])
        self.assertEqual(asked("ant@lists.example.org", HOSTS), [("ant@lists.example.org", None)])
        self.assertEqual(asked("ant@example.org", HOSTS), [])

    def test_postmaster(self) -> None:
        """Whoever has no domain is no list, or Mailman would stumble over it."""
        self.assertEqual(asked("postmaster"), [])
        self.assertEqual(asked(""), [])

    def test_no_lists(self) -> None:
        """Quotes, address literals, look-alikes and routes inside a local-part are no list's."""
        for mailbox in (
            '"ant"@a.example',
            "ant@[192.0.2.1]",
            "\u212aant@a.example",
            "ant%b.example@a.example/",
            "ant%b.example@a.example",
            "ant/../x@a.example",
            "@a.example",
            "+x@a.example",
            "a b@a.example",
            "ant@b.example@a.example",
            "ant\n@a.example",
        ):
            self.assertEqual(asked(mailbox), [], mailbox)

    def test_bare(self) -> None:
        """Addresses that differ in case or in a token alone are one question."""
        for mailbox in ("ant-confirm@a.example", "Ant-Confirm+T0KEN@A.example", "ant-confirm+x@a.example"):
            self.assertEqual(bare_address(mailbox), "ant-confirm@a.example")

    @given(st.text('aA-+@._\u212a\u00fc"\\/[] ', max_size=12), st.sampled_from(sorted(SUBADDRESSES)))
    @examples(300)
    def test_anything(self, text: str, subaddress: str) -> None:
        """Whatever it is: one candidate or two, in lower case, in the mailbox's own domain."""
        for mailbox in (f"{text}@a.example", f"{text}-{subaddress}@a.example", text):
            found = candidates(mailbox)
            self.assertLessEqual(len(found), 2)
            for each in found:
                local_part, _, domain = each.list_name.partition("@")
                self.assertTrue(local_part and each.list_name.isascii())
                self.assertEqual(each.list_name, each.list_name.lower())
                self.assertEqual(domain, canonical(mailbox.rpartition("@")[2]))
                self.assertNotIn("+", local_part)


class Mailman2Tests(SynchronousTestCase):
    """Mailman 2, to which all domains are one."""

    def test_list(self) -> None:
        """A list is known by its name, whatever the domain."""
        self.assertEqual(asked2("Ant-Farm@a.example"), [("ant-farm", None)])
        self.assertEqual(asked2("ant@[192.0.2.1]"), [("ant", None)])

    def test_extensions(self) -> None:
        """The extensions are Mailman 3's and -admin."""
        self.assertEqual(EXTENSIONS - SUBADDRESSES, {"admin"})
        for each in EXTENSIONS:
            self.assertEqual(
                asked2(f"ant-farm-{each}@a.example"), [(f"ant-farm-{each}", None), ("ant-farm", each)]
            )

    def test_tokens(self) -> None:
        """Tokens follow -bounces and -confirm alone; names and tokens may have what the other has."""
        self.assertEqual(asked2("ant-bounces+a=b.example@a.example")[-1], ("ant", "bounces"))
        self.assertEqual(asked2("ant-confirm+0Ab@a.example")[-1], ("ant", "confirm"))
        self.assertEqual(asked2("c++-bounces+a=b@a.example")[-1], ("c++", "bounces"))
        self.assertEqual(asked2("c++-users@a.example"), [("c++-users", None)])
        self.assertEqual(asked2("ant-bounces+o'neil-owner@a.example"), [("ant", "bounces")])
        self.assertEqual(asked2("ant-owner+x@a.example"), [("ant-owner+x", None)])
        self.assertEqual(
            asked2("ant-confirm+x-bounces+y@a.example"),
            [("ant-confirm+x-bounces+y", None), ("ant", "confirm"), ("ant-confirm+x", "bounces")],
        )

    def test_no_lists(self) -> None:
        """What could be an option, a path or a look-alike is no list."""
        for local_part in (
            "-x",
            "-owner",
            ".",
            "..",
            ".git",
            "a/b",
            "..-owner",
            "a b",
            "",
            '"a"',
            "\u212a",
            "a\n",
        ):
            self.assertEqual(asked2(f"{local_part}@a.example"), [], local_part)
        self.assertEqual(asked2("postmaster"), [])

    @given(st.text("aA-+@._=/\u212a\n ", max_size=16), st.sampled_from(["-bounces+", "-owner", "-confirm+"]))
    @examples(300)
    def test_anything(self, text: str, extension: str) -> None:
        """Whatever it is, what comes out is safe on a command line and in a path."""
        for each in mailman2_candidates(f"{text}{extension}{text}@a.example"):
            self.assertIsInstance(each, ListAddress)
            self.assertTrue(is_mailman2_name(each.list_name))
            self.assertNotIn(each.list_name[0], "-.")
            self.assertNotIn("/", each.list_name)
            self.assertIn(each.subaddress, EXTENSIONS | {None})
