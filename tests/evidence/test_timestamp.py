"""The lie: 'issued then', of what was issued later, or stamped by nobody."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from erasediff.attempts.attempt import Attempt
from erasediff.errors import BadInput, IntegrityError, Unreachable
from erasediff.evidence.timestamp import stamp
from erasediff.evidence.verification import CertificateFiles, verify
from erasediff.steps.certify import certify
from tests.evidence.conftest import Issued
from tests.evidence.signed import key_in, resigned

OPENSSL = shutil.which("openssl")
pytestmark = pytest.mark.skipif(OPENSSL is None, reason="no openssl is installed: `apt-get install openssl`, then run this file again")
CONFIG = """
[ req ]
distinguished_name = dn
prompt = no
[ dn ]
CN = {name}
[ root ]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign
[ leaf ]
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature
extendedKeyUsage = critical,timeStamping
[ tsa ]
default_tsa = here
[ here ]
serial = {folder}/serial
signer_cert = {folder}/tsa.pem
signer_key = {folder}/tsa.key
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256,sha512
ess_cert_id_chain = no
ess_cert_id_alg = sha256
"""


class Authority:
    """A time stamp authority of ``openssl ts`` behind HTTP."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder, self.root, self.broken = folder, folder / "root.pem", False
        for name in ("root", "tsa"):
            (folder / f"{name}.cnf").write_text(CONFIG.format(folder=folder, name=f"test {name}"))
        (folder / "serial").write_text("01\n")
        new = ["req", "-newkey", "rsa:2048", "-nodes", "-config"]
        self.openssl(*new, "root.cnf", "-x509", "-days", "30", "-extensions", "root", "-keyout", "root.key", "-out", "root.pem")
        self.openssl(*new, "tsa.cnf", "-keyout", "tsa.key", "-out", "tsa.csr")
        signed = ["-CA", "root.pem", "-CAkey", "root.key", "-CAcreateserial", "-days", "30", "-extfile", "tsa.cnf", "-extensions", "leaf"]
        self.openssl("x509", "-req", "-in", "tsa.csr", *signed, "-out", "tsa.pem")

    def openssl(self, *arguments: str) -> None:
        subprocess.run([str(OPENSSL), *arguments], cwd=self.folder, check=True, capture_output=True)

    def answer(self, query: bytes) -> bytes:
        if self.broken:
            return b"no stamp"
        (self.folder / "query").write_bytes(query)
        self.openssl("ts", "-reply", "-config", "tsa.cnf", "-section", "here", "-queryfile", "query", "-out", "reply")
        return (self.folder / "reply").read_bytes()


@pytest.fixture
def authority(tmp_path: Path) -> Iterator[tuple[Authority, str]]:
    known = Authority(tmp_path / "authority")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            data = known.answer(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    yield known, f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


@pytest.mark.usefixtures("signed_by", "needs_model_signing")
def test_a_certificate_is_stamped_and_the_stamp_is_checked(
    run: Attempt, keys: Path, authority: tuple[Authority, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known, url = authority
    monkeypatch.setenv("ERASEDIFF_SIGNING_TIMESTAMP_URL", url)
    assert "certificate.tsr" in {file.uri for file in certify(run).files}
    certificate, token = run.folder / "certificate.dsse.json", run.folder / "certificate.tsr"
    shown = CertificateFiles(certificate, keys / "signing-key.pub", timestamp=token, timestamp_root=known.root)
    assert verify(shown).checks_passed[-1].startswith("time stamp of 20")
    with pytest.raises(BadInput, match="needs --timestamp-root"):
        verify(CertificateFiles(certificate, keys / "signing-key.pub", timestamp=token))
    other = Authority(tmp_path / "other")
    with pytest.raises(IntegrityError, match="is not a time stamp over this certificate"):
        verify(CertificateFiles(certificate, keys / "signing-key.pub", timestamp=token, timestamp_root=other.root))
    assert not [said for said in flipped_stamps(shown, tmp_path / "flipped.tsr") if said != verify(shown).checks_passed[-1]]


def flipped_stamps(shown: CertificateFiles, to: Path) -> list[str]:
    """What is said of a stamp with a byte flipped, where it is not refused: CMS leaves a few bytes unsigned that nobody reads."""
    assert shown.timestamp is not None
    whole, said, refused = shown.timestamp.read_bytes(), list[str](), list[str]()
    for position in range(0, len(whole), 23):
        to.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        try:
            said.append(verify(replace(shown, timestamp=to)).checks_passed[-1])
        except IntegrityError as error:
            refused.append(str(error))
    assert len(refused) > 10 * len(said), "control: nearly all are refused"
    assert not [sentence for sentence in refused if "\n" in sentence]
    return said


def test_a_stamp_of_long_after_the_date_is_found_out(issued: Issued, authority: tuple[Authority, str], tmp_path: Path) -> None:
    """As of who has a stolen key and dates a certificate back."""
    known, url = authority

    def date_back(document: dict[str, Any]) -> None:
        document["predicate"]["issued_at"] = "2020-01-01T00:00:00Z"

    backdated, token = resigned(issued.certificate, key_in(issued.keys), date_back, tmp_path / "c"), tmp_path / "c.tsr"
    token.write_bytes(stamp(backdated.read_bytes(), url))
    with pytest.raises(IntegrityError, match="but was stamped at"):
        issued.verify(certificate=backdated, timestamp=token, timestamp_root=known.root)
    assert issued.verify(certificate=backdated).checks_passed == ("signature",), "control: without a stamp nothing shows it"


@pytest.mark.usefixtures("signed_by", "needs_model_signing")
def test_an_authority_that_does_not_stamp_ends_in_a_sentence_and_no_certificate(
    run: Attempt, authority: tuple[Authority, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    known, url = authority
    known.broken = True
    for address in (url, "http://127.0.0.1:9/"):
        monkeypatch.setenv("ERASEDIFF_SIGNING_TIMESTAMP_URL", address)
        with pytest.raises(Unreachable, match="does not answer correctly"):
            certify(run)
        assert not (run.folder / "certificate.dsse.json").exists()
