"""What a handshake settles, and what is known afterwards."""

import os
from typing import Any

from cryptography import x509
from OpenSSL import SSL

from smtpserv.message import TLSFacts
from smtpserv.tls import tls_facts
from tests.certificates import DAY, NOW, CertificatesCase, Handshake, Pair, carry, client_context, make_pair
from tests.server_tools import captured_log


class AgreementTests(CertificatesCase):
    """What a handshake settles."""

    def setUp(self) -> None:
        super().setUp()
        self.path = self.write("mail.pem", make_pair("mx.example").pem)

    def client(self, version: int) -> SSL.Context:
        """A client that speaks one version of TLS."""
        context = client_context()
        context.set_cipher_list(b"ALL:@SECLEVEL=0")
        context.set_min_proto_version(version)
        context.set_max_proto_version(version)
        return context

    def test_versions(self) -> None:
        """TLS 1.2 and 1.3 are spoken, nothing older."""
        certificates = self.certificates(self.path)
        for version, name in ((SSL.TLS1_2_VERSION, "TLSv1.2"), (SSL.TLS1_3_VERSION, "TLSv1.3")):
            facts = tls_facts(Handshake(certificates, context=self.client(version)).server)
            self.assertEqual(facts["version"], name)
        self.assertRaises(SSL.Error, Handshake, certificates, context=self.client(SSL.TLS1_1_VERSION))

    def test_protocol(self) -> None:
        """A client that offers ``smtp`` among others speaks it; one that offers nothing is not asked."""
        certificates = self.certificates(self.path)
        for offered, agreed in (([b"h2", b"smtp"], b"smtp"), ([b"smtp"], b"smtp"), (None, b"")):
            handshake = Handshake(certificates, alpn=offered)
            self.assertEqual(handshake.client.get_alpn_proto_negotiated(), agreed)

    def test_other_protocol(self) -> None:
        """One that came for another protocol is told so, by the alert made for it, and the next is served."""
        certificates = self.certificates(self.path)
        server: Any = certificates.serverConnectionForTLS(None)  # type: ignore[arg-type]
        server.set_accept_state()
        client = SSL.Connection(client_context())
        client.set_connect_state()
        client.set_alpn_protos([b"http/1.1"])
        self.assertRaises(SSL.WantReadError, client.do_handshake)
        server.bio_write(client.bio_read(10000))
        self.assertRaises(SSL.Error, server.do_handshake)
        client.bio_write(server.bio_read(10000))
        alert = self.assertRaises(SSL.Error, client.do_handshake)
        self.assertIn("no application protocol", alert.args[0][-1][2])
        Handshake(certificates, alpn=[b"smtp"])

    def test_renegotiation(self) -> None:
        """A client cannot make the server shake hands again."""
        handshake = Handshake(self.certificates(self.path), context=self.client(SSL.TLS1_2_VERSION))
        client, server = handshake.client, handshake.server
        client.renegotiate()
        self.assertRaises(SSL.WantReadError, client.do_handshake)
        carry(client, server)
        self.assertRaises(SSL.WantReadError, server.recv, 100)
        carry(server, client)
        error = self.assertRaises(SSL.Error, client.do_handshake)
        self.assertIn("no renegotiation", error.args[0][-1][2])

    def test_facts(self) -> None:
        """What is known fits the session's value, under its names."""
        handshake = Handshake(self.certificates(self.path), "MX.example", self.client(SSL.TLS1_2_VERSION))
        facts = TLSFacts(**tls_facts(handshake.server))
        self.assertEqual(facts, TLSFacts("TLSv1.2", facts.cipher, "MX.example", None, b""))
        self.assertTrue(facts.cipher.startswith("ECDHE-"), facts.cipher)

    def test_channel_binding(self) -> None:
        """Both ends find the same octets (RFC 9266), other ones each time, and no repr shows them."""
        certificates = self.certificates(self.path)
        found = []
        for _ in range(2):
            handshake = Handshake(certificates)
            facts = TLSFacts(**tls_facts(handshake.server))
            expected = handshake.client.export_keying_material(b"EXPORTER-Channel-Binding", 32, b"")
            self.assertEqual(facts.channel_binding, expected)
            self.assertNotIn("binding", repr(facts))
            found.append(expected)
        self.assertNotEqual(*found)


class ClientTests(CertificatesCase):
    """Clients that show a certificate."""

    def setUp(self) -> None:
        super().setUp()
        self.ca = make_pair(cn="authority", ca=True)
        self.path = self.write("mail.pem", make_pair("mx.example").pem)
        self.client_ca = self.write("clients.crt", self.ca.certificate_pem)
        self.server = self.certificates(self.path, self.client_ca)

    def known_as(self, pair: Pair | None, *chain: Pair, version: int = SSL.TLS1_3_VERSION) -> str | None:
        """What the server calls a client that shows this."""
        self.clock.advance(2)
        context = client_context(pair, chain)
        context.set_max_proto_version(version)
        return tls_facts(Handshake(self.server, context=context).server)["client_name"]

    def test_names(self) -> None:
        """A mailbox goes before a host, and a host before a common name."""
        mailbox = x509.RFC822Name("me@a.example")
        for version in (SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION):
            for names, cn, expected in (
                (("h.example", mailbox), "Me", "me@a.example"),
                (("h.example", "i.example"), "Me", "h.example"),
                ((), "Me", "Me"),
                ((), "", None),
            ):
                pair = make_pair(*names, cn=cn, issuer=self.ca)
                self.assertEqual(self.known_as(pair, version=version), expected)

    def test_none(self) -> None:
        """A client may do without a certificate."""
        self.assertIsNone(self.known_as(None))

    def test_chain(self) -> None:
        """One that an authority's authority vouches for is known, if it brings what lies between."""
        between = make_pair(cn="between", ca=True, issuer=self.ca)
        pair = make_pair(cn="me", issuer=between)
        self.assertEqual(self.known_as(pair, between), "me")
        self.assertIsNone(self.known_as(pair))

    def test_worthless(self) -> None:
        """One that nobody, a stranger or no authority vouches for, or that has expired, is nobody's name."""
        impostor = make_pair(cn="authority", ca=True)
        friend = make_pair(cn="friend", issuer=self.ca)
        for version in (SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION):
            for chain in (
                [make_pair(cn="me")],
                [make_pair(cn="me", issuer=impostor), impostor],
                [make_pair(cn="me", issuer=friend), friend],
                [make_pair(cn="me", issuer=self.ca, since=NOW - 2 * DAY, until=NOW - DAY)],
            ):
                self.assertIsNone(self.known_as(*chain, version=version))

    def test_not_asked(self) -> None:
        """A server that knows no authorities believes nobody."""
        self.server = self.certificates(self.path)
        self.assertIsNone(self.known_as(make_pair(cn="me", issuer=self.ca)))

    def test_no_resumption(self) -> None:
        """A session that is resumed would bring a certificate that nobody checked: there is none."""
        for version in (SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION):
            context = client_context(make_pair(cn="me"))
            context.set_max_proto_version(version)
            first = Handshake(self.server, context=context)
            second = Handshake(self.server, context=context, session=first.client.get_session())
            self.assertIsNone(tls_facts(second.server)["client_name"])
            known = client_context(make_pair(cn="me", issuer=self.ca))
            known.set_max_proto_version(version)
            first = Handshake(self.server, context=known)
            second = Handshake(self.server, context=known, session=first.client.get_session())
            self.assertEqual(tls_facts(second.server)["client_name"], "me")

    def test_authorities_change(self) -> None:
        """Authorities are read again like certificates; a broken file of them leaves those there were."""
        log = captured_log(self)
        other = make_pair(cn="other", ca=True)
        old, new = make_pair(cn="old", issuer=self.ca), make_pair(cn="new", issuer=other)
        self.assertEqual((self.known_as(old), self.known_as(new)), ("old", None))
        self.write("clients.crt", other.certificate_pem)
        self.assertEqual((self.known_as(old), self.known_as(new)), (None, "new"))
        self.write("clients.crt", b"")
        self.assertEqual((self.known_as(old), self.known_as(new)), (None, "new"))
        fault = f"{self.client_ca}: holds no certificate, or a damaged one"
        self.assertEqual([event["fault"] for event in log], [fault])

    def test_broken_authorities(self) -> None:
        """Authorities that cannot be read end the start."""
        for path in (self.write("none.crt", b""), os.path.join(self.folder, "missing.crt")):
            error = self.assertRaises(ValueError, self.certificates, self.path, path)
            self.assertTrue(str(error).startswith(f"{path}: "))
