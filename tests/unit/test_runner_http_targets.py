"""HTTP jobs: whom they connect to, what redirects may do, which connections are used again."""

from __future__ import annotations

import datetime
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from crony.domain.callback import Token
from crony.domain.outcome import Kind
from crony.workers import reach
from crony.workers.attempt import Verdict
from crony.workers.calling import Callback
from crony.workers.process import Process
from crony.workers.runners import http
from crony.workers.runners.http_wire import Connections
from tests.helpers import attempts
from tests.helpers.attempts import Aside
from tests.helpers.service import Asked, service, talker
from tests.helpers.wait import until

SECRET = "s" * 32


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Process]:
    made = attempts.process(tmp_path, call_secrets=(SECRET,), tls_dir=str(tmp_path))
    yield made
    made.own("http", Connections).close()


def run(parts: Process, url: str, action: dict | None = None, /, **changes: object) -> Verdict:
    return http.run(attempts.attempt(parts, {"kind": "http", "url": url, **(action or {})}, **changes))


def ok(asked: Asked) -> tuple[int, dict[str, str], bytes]:
    return 200, {}, b""


def to(url: str, status: int = 302) -> Callable[[Asked], tuple[int, dict[str, str], bytes]]:
    return lambda asked: (status, {"Location": url}, b"") if asked.path == "/" else (200, {}, b"there")


def resolver(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> list[str]:
    """Names resolve to each of the answers in turn; the names that were asked for."""
    asked: list[str] = []

    def answer(host: str, *args: Any, **kwargs: Any) -> list[Any]:
        asked.append(host)
        found = answers[min(len(asked), len(answers)) - 1]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in found]

    monkeypatch.setattr(reach.socket, "getaddrinfo", answer)
    return asked


# -- whom it connects to --------------------------------------------------------------------------


def test_addresses_inside_are_closed_by_default(tmp_path: Path) -> None:
    closed = attempts.process(tmp_path, http_allow=())
    with service(ok) as there:
        verdict = run(closed, there.url)
    assert verdict.kind is Kind.FAILED and "CRONY_HTTP_ALLOW" in verdict.reason
    assert there.asked == []


def test_a_name_is_resolved_once_and_only_its_allowed_addresses_are_tried(
    parts: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = resolver(monkeypatch, ["10.0.0.1", "169.254.169.254", "127.0.0.1"], ["169.254.169.254"])
    with service(ok) as there:
        url = there.url.replace("127.0.0.1", "rebinding.test")
        assert run(parts, url).kind is Kind.SUCCEEDED
        second = run(parts, url)
    assert asked == ["rebinding.test"] * 2, "once for each attempt"
    assert there.asked[0].headers["host"].startswith("rebinding.test:")
    assert second.kind is Kind.FAILED and "link-local" in second.reason, "a kept connection is not used instead"
    assert len(there.asked) == 1


def test_a_name_that_is_not_known_or_takes_long(parts: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    hold = threading.Event()

    def answer(host: str, *args: Any, **kwargs: Any) -> list[Any]:
        if host == "slow.test":
            hold.wait(20)
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(reach.socket, "getaddrinfo", answer)
    unknown, slow = run(parts, "http://unknown.test/"), run(parts, "http://slow.test/", timeout=0.3)
    hold.set()
    assert (unknown.kind, slow.kind) == (Kind.FAILED, Kind.TIMED_OUT)
    assert "unknown.test cannot be resolved: Name or service not known" in unknown.reason
    assert "it was not sent" in slow.reason


def test_a_connection_that_is_never_made_is_broken_off(parts: Process) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        full = [socket.socket() for _ in range(4)]
        for each in full:  # the listener's queue is full: a further one is neither taken nor refused
            each.setblocking(False)
            each.connect_ex(listener.getsockname())
        target = attempts.attempt(parts, {"kind": "http", "url": f"http://127.0.0.1:{listener.getsockname()[1]}/"})
        aside = Aside(http.run, target)
        with pytest.raises(AssertionError):
            aside.join(0.3)
        target.cancel()
        verdict = aside.join(2)
        for each in full:
            each.close()
    assert verdict.kind is Kind.CANCELLED and "it was not sent" in verdict.reason


# -- redirects ------------------------------------------------------------------------------------


def test_redirects_are_followed_as_often_as_the_job_allows(parts: Process) -> None:
    def answer(asked: Asked) -> tuple[int, dict[str, str], bytes]:
        at = int(asked.path.strip("/") or 0)
        return (302, {"Location": f"/{at + 1}"}, b"x" * 100) if at < 3 else (200, {}, b"")

    with service(answer) as there:
        assert run(parts, there.url, {"redirects": 3}).kind is Kind.SUCCEEDED
        verdict = run(parts, there.url, {"redirects": 2})
    assert (verdict.kind, verdict.code) == (Kind.FAILED, 302)
    assert "more than the job allows" in verdict.reason


@pytest.mark.parametrize(("status", "method"), [(301, "GET"), (303, "GET"), (307, "POST"), (308, "POST")])
def test_method_and_body_of_a_redirect(parts: Process, status: int, method: str) -> None:
    with service(to("/there", status)) as there:
        verdict = run(parts, there.url, {"method": "POST", "json": {"a": 1}, "redirects": 1})
    assert verdict.kind is Kind.SUCCEEDED
    first, second = there.asked
    assert (second.method, second.body) == (method, first.body if method == "POST" else b"")
    assert second.headers["x-crony-signature"] != first.headers["x-crony-signature"], "it is signed for where it goes"


@pytest.mark.parametrize(
    ("location", "why"),
    [
        ("http://169.254.169.254/latest/meta-data", "no job may call"),
        ("http://10.0.0.1/", "CRONY_HTTP_ALLOW"),
        ("http://[::ffff:10.0.0.1]/", "hides another address"),
        ("file:///etc/passwd", "must start with http"),
        ("http://[nonsense/", "not a URL"),
        ("gopher://127.0.0.1:70/x", "must start with http"),
        ("http://user:secret@127.0.0.1/", "carries a user or password"),
        ("http://0x7f000001/", "number for a host"),
        ("", "says not where to"),
    ],
)
def test_every_hop_is_checked_anew(parts: Process, location: str, why: str) -> None:
    with service(to(location)) as there:
        verdict = run(parts, there.url, {"redirects": 5})
    assert verdict.kind is Kind.FAILED and why in verdict.reason, verdict
    assert len(there.asked) == 1 and "secret" not in verdict.reason


def test_nothing_that_speaks_for_us_goes_to_another_host(parts: Process) -> None:
    own = {"Authorization": "Bearer canary", "Cookie": "canary", "X-Api-Key": "canary", "Accept": "text/x"}
    with service(ok) as other, service(to(f"{other.url}/there")) as there:
        assert run(parts, there.url, {"redirects": 1, "headers": own}).kind is Kind.SUCCEEDED
        body = run(parts, there.url, {"redirects": 1, "method": "PUT", "body": "canary"})
        target = attempts.attempt(parts, {"kind": "http", "url": there.url, "redirects": 1}, deadline=60.0)
        target.callback = Callback.of(target.envelope, Token.new("run.n1", "9.x"), api="http://a", now=0.0)
        later = http.run(target)
    assert "canary" in str(there.asked[0].headers)
    (asked,) = other.asked
    assert "canary" not in str(asked.headers) and asked.headers["accept"] == "text/x"
    assert not {"x-crony-signature", "x-crony-token", "x-crony-callback"} & set(asked.headers)
    assert "would take the body there" in body.reason and "could not answer later" in later.reason


# -- connections that are used again --------------------------------------------------------------


def counted(answers: int, then: Callable[[socket.socket], None] = lambda connection: None) -> Any:
    """A script of `talker`: so many answers on one connection, then something. And how many connections there were."""
    seen: list[int] = []

    def script(connection: socket.socket) -> None:
        seen.append(0)
        number = len(seen) - 1
        while seen[number] < answers:
            if not connection.recv(65536):
                return
            seen[number] += 1
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        then(connection)

    return script, seen


def test_a_connection_is_used_again_within_a_process(parts: Process) -> None:
    script, seen = counted(100)
    with talker(script) as url:
        assert [run(parts, url).kind for _ in range(5)] == [Kind.SUCCEEDED] * 5
        assert run(parts, f"{url}/other?x=1").kind is Kind.SUCCEEDED
        assert run(parts, url, delivery="at_most_once").kind is Kind.SUCCEEDED
    assert seen == [6, 1], "what must not run twice gets a connection of its own"


def test_one_that_the_service_has_closed_is_not(parts: Process) -> None:
    closed = threading.Event()

    def close(connection: socket.socket) -> None:
        connection.close()
        closed.set()

    script, seen = counted(1, close)
    with talker(script) as url:
        assert run(parts, url).kind is Kind.SUCCEEDED
        assert closed.wait(5)
        assert run(parts, url, {"method": "POST", "body": "x"}).kind is Kind.SUCCEEDED
    assert seen == [1, 1]


def test_an_answer_lost_on_a_kept_connection_is_unknown_and_not_sent_again(parts: Process) -> None:
    def swallow(connection: socket.socket) -> None:
        connection.recv(65536)

    script, seen = counted(1, swallow)
    with talker(script) as url:
        assert run(parts, url).kind is Kind.SUCCEEDED
        verdict = run(parts, url, {"method": "POST", "body": "once"})
    assert verdict.kind is Kind.UNKNOWN
    assert seen == [1]


def test_after_a_timeout_or_a_cut_answer_its_connection_is_not_used_again(parts: Process) -> None:
    hold = threading.Event()
    lines: list[bytes] = []

    def script(connection: socket.socket) -> None:
        lines.append(connection.recv(65536).split(b"\r\n")[0])
        if len(lines) == 1:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
            hold.wait(10)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    with talker(script) as url:
        assert run(parts, url, timeout=0.3).kind is Kind.TIMED_OUT
        verdict = run(parts, url)
    hold.set()
    assert verdict == Verdict(Kind.SUCCEEDED, code=200)
    assert len(lines) == 2


# -- TLS ------------------------------------------------------------------------------------------


def certificate(folder: Path, name: str, signer: Any = None, *, ca: bool = False) -> Any:
    """A key and certificate `<name>.pem` for host `service.test`, signed by `signer` or itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    issuer_key, issuer = signer or (key, subject)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca, None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("service.test")]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        .sign(issuer_key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / f"{name}.pem").write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    (folder / f"{name}.crt").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    return key, subject


@contextmanager
def tls_service(folder: Path, *, clients: bool = False) -> Iterator[int]:
    """A TLS service of `service.test`; its port. With `clients` it wants a certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    if clients:
        context.load_verify_locations(folder / "ca.crt")
        context.verify_mode = ssl.CERT_REQUIRED

    def script(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secure:
            while secure.recv(65536):
                secure.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    with talker(script) as url:
        yield int(url.rpartition(":")[2])


def test_tls_with_files_of_the_node(parts: Process, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resolver(monkeypatch, ["127.0.0.1"])
    ca = certificate(tmp_path, "ca", ca=True)
    certificate(tmp_path, "server", ca)
    certificate(tmp_path, "client", ca)
    with tls_service(tmp_path) as port:
        url = f"https://service.test:{port}/"
        assert run(parts, url, {"ca": "ca.crt"}).kind is Kind.SUCCEEDED
        assert run(parts, url, {"verify_tls": False}).kind is Kind.SUCCEEDED
        untrusted, other = run(parts, url), run(parts, f"https://other.test:{port}/", {"ca": "ca.crt"})
        missing = run(parts, url, {"ca": "none.crt"})
    assert untrusted.kind is Kind.FAILED and "certificate verify failed" in untrusted.reason
    assert other.kind is Kind.FAILED and "Hostname mismatch" in other.reason, "a connection is of one host name"
    assert missing.kind is Kind.FAILED and "none.crt is not in this node's folder CRONY_TLS_DIR" in missing.reason
    with tls_service(tmp_path, clients=True) as port:
        url = f"https://service.test:{port}/"
        assert run(parts, url, {"ca": "ca.crt", "client_cert": "client.pem"}).kind is Kind.SUCCEEDED
        refused = run(parts, url, {"ca": "ca.crt"})
    assert refused.kind in (Kind.UNKNOWN, Kind.FAILED), "a connection is of one certificate"


def test_a_handshake_that_never_ends_is_broken_off(parts: Process) -> None:
    hold, greeted = threading.Event(), threading.Event()

    def script(connection: socket.socket) -> None:
        connection.recv(65536)
        greeted.set()
        while not hold.wait(0.05):
            connection.sendall(b"\x16")

    with talker(script) as url:
        target = attempts.attempt(parts, {"kind": "http", "url": url.replace("http:", "https:")})
        aside = Aside(http.run, target)
        until(greeted.is_set, what="the handshake begins")
        target.cancel()
        verdict = aside.join(2)
    hold.set()
    assert verdict.kind is Kind.CANCELLED
