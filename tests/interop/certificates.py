"""Authorities and certificates for the TLS tests, made anew for each run of them.

    ca.pem, other-ca.pem            two authorities
    good.pem, rsa.pem               of localhost and 127.0.0.1, by the first; EC and RSA
    named.pem                       of other.example and www.other.example
    expired.pem, early.pem          on 2021-01-01, from 2090-01-01
    stranger.pem                    by the second authority
    self-signed.pem                 by itself
    client.pem, client-rsa.pem      client certificates by the first; EC and RSA
    client-chain.pem                by an authority that the first one made
    member.pem, member-chain.pem    client certificates with the common name gateway-7
    nobody.pem, stranger-member.pem with that of nobody, and by the second authority
    client-encrypted.pem            the key of client.pem behind a password

Each of them with -key.pem, -cert.der and -key.der.
"""

import base64
import datetime
import hashlib
import re

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

HOSTS = ("localhost", "127.0.0.1")
EXPIRED = datetime.datetime(2021, 1, 1)
EARLY = datetime.datetime(2090, 1, 1)
_PEM = serialization.Encoding.PEM
_PKCS8 = serialization.PrivateFormat.PKCS8


class Certificates:
    """The files above, in *folder*."""

    def __init__(self, folder):
        self.folder = folder
        ca = trustme.CA()
        other = trustme.CA()
        self._write("ca.pem", ca.cert_pem.bytes())
        self._write("ca.der", _der(ca.cert_pem.bytes()))
        self._write("other-ca.pem", other.cert_pem.bytes())
        rsa = trustme.KeyType.RSA
        years = datetime.timedelta(days=365)
        self._issue("good", ca.issue_cert(*HOSTS))
        self._issue("rsa", ca.issue_cert(*HOSTS, key_type=rsa))
        self._issue("named", ca.issue_cert("other.example", "www.other.example"))
        self._issue("expired", ca.issue_cert(*HOSTS, not_before=EXPIRED - years,
                                             not_after=EXPIRED))  # fmt: skip
        self._issue("early", ca.issue_cert(*HOSTS, not_before=EARLY, not_after=EARLY + years))
        self._issue("stranger", other.issue_cert(*HOSTS))
        self._issue("client", ca.issue_cert("edge-1"))
        self._issue("client-rsa", ca.issue_cert("edge-1", key_type=rsa))
        self._issue("client-chain", ca.create_child_ca().issue_cert("edge-1"))
        for name, signer, common_name in (
            ("member", ca, "gateway-7"),
            ("member-chain", ca.create_child_ca(), "gateway-7"),
            ("nobody", ca, "nobody"),
            ("stranger-member", other, "gateway-7"),
        ):
            self._issue(name, signer.issue_cert("gateway-7", common_name=common_name))
        self._sign_self()
        key = serialization.load_pem_private_key(self._read("client-key.pem"), None)
        self._write("client-encrypted.pem", key.private_bytes(
            _PEM, _PKCS8, serialization.BestAvailableEncryption(b"secret")))  # fmt: skip

    def path(self, name):
        return str(self.folder / name)

    def pin(self, name):
        """SHA-256 of a certificate, as the configuration has it."""
        return hashlib.sha256(self._read(name + "-cert.der")).hexdigest()

    def _issue(self, name, leaf):
        chain = b"".join(blob.bytes() for blob in leaf.cert_chain_pems)
        self._store(name, chain, leaf.private_key_pem.bytes())

    def _sign_self(self):
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
        leaf = (
            x509.CertificateBuilder(name, name, key.public_key(), 1)
            .not_valid_before(datetime.datetime(2020, 1, 1))
            .not_valid_after(datetime.datetime(2080, 1, 1))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), False)
            .sign(key, hashes.SHA256())
        )
        self._store("self-signed", leaf.public_bytes(_PEM), key.private_bytes(
            _PEM, _PKCS8, serialization.NoEncryption()))  # fmt: skip

    def _store(self, name, chain, key):
        self._write(name + ".pem", chain)
        self._write(name + "-key.pem", key)
        self._write(name + "-cert.der", _der(chain))
        self._write(name + "-key.der", _der(key))

    def _write(self, name, octets):
        (self.folder / name).write_bytes(octets)

    def _read(self, name):
        return (self.folder / name).read_bytes()


def _der(pem):
    """The first object of a PEM file."""
    return base64.b64decode(re.search(b"-----BEGIN .*?-----(.*?)-----END", pem, re.DOTALL)[1])
