"""Certificates in files: what they must hold, which is shown to whom, and what becomes of changes."""

import os
from datetime import timedelta
from typing import Any

from cryptography import x509

from smtpserv.tls import Certificates, pem
from smtpserv.tls import certificates as certificates_module
from tests.certificates import DAY, NOW, CertificatesCase, Handshake, make_pair
from tests.server_tools import captured_log


class FileTests(CertificatesCase):
    """What a file must hold."""

    def test_file(self) -> None:
        """A key and its certificate, in any order, are what clients are shown."""
        pair = make_pair("mx.example")
        for pieces in ((pair.key_pem, pair.certificate_pem), (pair.certificate_pem, pair.key_pem)):
            certificates = self.certificates(self.write("mail.pem", *pieces))
            self.assertEqual(self.shown(certificates), pair.certificate)

    def test_chain(self) -> None:
        """The certificates behind the first are shown along with it."""
        root = make_pair(cn="root", ca=True)
        between = make_pair(cn="between", ca=True, issuer=root)
        pair = make_pair("mx.example", issuer=between)
        path = self.write("mail.pem", pair.pem, between.certificate_pem)
        chain = Handshake(self.certificates(path)).client.get_peer_cert_chain(as_cryptography=True)
        self.assertEqual(chain, [pair.certificate, between.certificate])

    def test_useless(self) -> None:
        """A file that is of no use ends the start with a line that names it and says why."""
        pair, other = make_pair("mx.example"), make_pair("mx.example")
        old = make_pair(since=NOW - 2 * DAY, until=NOW - timedelta(hours=30))
        early = make_pair(since=NOW + timedelta(hours=1), until=NOW + DAY)
        for pieces, reason in (
            ([pair.certificate_pem], "holds no private key"),
            ([pair.key_pem], "holds no certificate, or a damaged one"),
            ([b""], "holds no certificate, or a damaged one"),
            ([pair.key_pem, other.certificate_pem], "the private key is not that of the first certificate"),
            ([pair.key_pem, other.certificate_pem, pair.certificate_pem], "not that of the first"),
            ([pair.key_pem, pair.certificate_pem[:200]], "holds no certificate, or a damaged one"),
            (
                [pair.key_pem.replace(b"M", b"N"), pair.certificate_pem],
                "the private key is encrypted, damaged",
            ),
            ([pair.locked_key_pem, pair.certificate_pem], "the private key is encrypted, damaged"),
            ([old.pem], f"the certificate expired on {NOW - timedelta(hours=30):%Y-%m-%d}"),
            ([early.pem], f"the certificate is not valid before {NOW + timedelta(hours=1):%Y-%m-%d}"),
        ):
            path = self.write("mail.pem", *pieces)
            for found in (path, self.folder):
                error = str(self.assertRaises(ValueError, self.certificates, found))
                self.assertTrue(error.startswith(f"{path}: "), error)
                self.assertIn(reason, error)
                self.assertNotIn("\n", error)

    def test_missing(self) -> None:
        """So does a file or folder that is not there, cannot be read, or is empty."""
        missing = os.path.join(self.folder, "missing.pem")
        error = self.assertRaises(ValueError, self.certificates, missing)
        self.assertEqual(str(error), f"{missing}: No such file or directory")
        error = self.assertRaises(ValueError, self.certificates)
        self.assertEqual(str(error), f"{self.folder}: no *.pem file is in this folder")
        os.symlink("nowhere", missing)
        error = self.assertRaises(ValueError, self.certificates)
        self.assertEqual(str(error), f"{missing}: No such file or directory")


class NameTests(CertificatesCase):
    """One server of many names."""

    def setUp(self) -> None:
        super().setUp()
        self.pairs = {
            "a.pem": make_pair("a.example", "*.wild.example"),
            "b.pem": make_pair("B.example", "a.example", "x.wild.example"),
            "c.txt": make_pair("c.example"),
        }
        for name, pair in self.pairs.items():
            self.write(name, pair.pem)

    def assertShown(self, certificates: Certificates, **expected: str) -> None:
        """For a name (written with underscores) the certificate of this file is shown."""
        for name, file in expected.items():
            asked = name.replace("_", ".")
            self.assertEqual(self.shown(certificates, asked), self.pairs[f"{file}.pem"].certificate, asked)

    def test_names(self) -> None:
        """The name asked for decides, in any case; a wildcard is one label; the first file goes first."""
        self.assertShown(
            self.certificates(),
            a_example="a",
            b_example="b",
            B_EXAMPLE="b",
            y_wild_example="a",
            x_wild_example="b",
        )

    def test_default(self) -> None:
        """Who asks for nothing, or for what is not there, is shown the first file, or ``default.pem``."""
        strangers = {"": "a", "c_example": "a", "wild_example": "a", "x_y_wild_example": "a", "example": "a"}
        self.assertShown(self.certificates(), **strangers)
        self.pairs["default.pem"] = make_pair("z.example")
        self.write("default.pem", self.pairs["default.pem"].pem)
        self.assertShown(self.certificates(), **dict.fromkeys(strangers, "default"), a_example="a")

    def test_strange_names(self) -> None:
        """Whatever a client asks for, it is shown something."""
        certificates = self.certificates()
        for name in (".", "..", "*", "*.wild.example", "a" * 255, "a.example.", "\x7f\x01"):
            self.shown(certificates, name)


class ReloadTests(CertificatesCase):
    """Files that change while the server runs."""

    def setUp(self) -> None:
        super().setUp()
        self.log = captured_log(self)

    def faults(self) -> list[str]:
        """What was logged since this was last asked."""
        found = [event["fault"] for event in self.log if "fault" in event]
        self.log.clear()
        return found

    def test_changed(self) -> None:
        """A new handshake is under the new certificate, one that is done goes on."""
        first, second = make_pair("mx.example"), make_pair("mx.example")
        path = self.write("mail.pem", first.pem)
        certificates = self.certificates(path)
        standing = Handshake(certificates)
        self.write("mail.pem", second.pem)
        self.assertEqual(self.shown(certificates), second.certificate)
        standing.client.send(b"NOOP\r\n")
        standing.server.bio_write(standing.client.bio_read(1000))
        self.assertEqual(standing.server.recv(100), b"NOOP\r\n")

    def test_replaced(self) -> None:
        """A file put in the place of another, of the same time and size, is a change."""
        first, second = make_pair("mx.example").pem, make_pair("mx.example").pem
        length = max(len(first), len(second))
        path = self.write("mail.pem", first.ljust(length))
        certificates = self.certificates(path)
        new = self.write("new", second.ljust(length))
        os.utime(new, ns=(1, 1))
        os.replace(new, path)
        self.assertEqual(self.shown(certificates), x509.load_pem_x509_certificate(second))

    def test_once_a_second(self) -> None:
        """The files are looked at when a handshake begins, and not more than once a second."""
        first, second = make_pair("mx.example"), make_pair("mx.example")
        certificates = self.certificates(self.write("mail.pem", first.pem))
        self.write("mail.pem", second.pem)
        self.clock.advance(0.9)
        self.assertEqual(Handshake(certificates).shown, first.certificate)
        self.clock.advance(0.1)
        self.assertEqual(Handshake(certificates).shown, second.certificate)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_broken(self) -> None:
        """A file that is broken is logged once, what it held before stays; mended, it counts again."""
        first, second = make_pair("mx.example"), make_pair("mx.example")
        path = self.write("mail.pem", first.pem)
        for certificates in (self.certificates(path), self.certificates()):
            self.write("mail.pem", second.key_pem)
            for _ in range(3):
                self.assertEqual(self.shown(certificates), first.certificate)
            self.assertEqual(self.faults(), [f"{path}: holds no certificate, or a damaged one"])
            self.write("mail.pem", second.pem)
            self.assertEqual(self.shown(certificates), second.certificate)
            self.assertEqual(self.faults(), [])
            self.write("mail.pem", first.pem)

    def test_gone(self) -> None:
        """So is one that is gone, and a folder that is empty or gone."""
        pair = make_pair("mx.example")
        path = self.write("mail.pem", pair.pem)
        file, folder = self.certificates(path), self.certificates()
        os.unlink(path)
        for certificates, fault in (
            (file, f"{path}: No such file or directory"),
            (folder, f"{self.folder}: no *.pem file is in this folder"),
        ):
            for _ in range(3):
                self.assertEqual(self.shown(certificates), pair.certificate)
            self.assertEqual(self.faults(), [fault])
        os.rmdir(self.folder)
        for _ in range(3):
            self.assertEqual(self.shown(folder), pair.certificate)
        self.assertEqual(self.faults(), [f"{self.folder}: No such file or directory"])
        os.mkdir(self.folder)
        again = make_pair("mx.example")
        self.write("mail.pem", again.pem)
        for certificates in (file, folder):
            self.assertEqual(self.shown(certificates), again.certificate)

    def test_folder(self) -> None:
        """Files come into a folder and go, and only what changed is read."""
        pairs = [make_pair(f"{number}.example") for number in range(3)]
        for number, pair in enumerate(pairs):
            self.write(f"{number}.pem", pair.pem)
        certificates = self.certificates()
        reads: list[str] = []

        def read_identity(path: str) -> Any:
            reads.append(os.path.basename(path))
            return pem.read_identity(path)

        self.patch(certificates_module, "read_identity", read_identity)
        os.unlink(os.path.join(self.folder, "1.pem"))
        pairs[2], new = make_pair("2.example"), make_pair("3.example")
        self.write("2.pem", pairs[2].pem)
        self.write("3.pem", new.pem)
        expected = {"0": pairs[0], "1": pairs[0], "2": pairs[2], "3": new}
        for name, pair in expected.items():
            self.assertEqual(self.shown(certificates, f"{name}.example"), pair.certificate)
        self.assertEqual((reads, self.faults()), (["2.pem", "3.pem"], []))

    def test_new_and_broken(self) -> None:
        """A new file that is of no use takes nothing from the others."""
        pair = make_pair("a.example")
        self.write("b.pem", pair.pem)
        certificates = self.certificates()
        path = self.write("a.pem", b"to be continued")
        for _ in range(2):
            self.assertEqual(self.shown(certificates), pair.certificate)
        self.assertEqual(self.faults(), [f"{path}: holds no certificate, or a damaged one"])
