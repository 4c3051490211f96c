"""`recserve serve` with TLS and keys, and twice on one machine."""

from __future__ import annotations

import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import toy
from bento_process import write_release
from ports import free_ports

from client.service import RecserveClient
from client.trust import pinned
from recommender.contract import RECOMMENDER_ONNX
from recommender.errors import BadInput, Denied, Unavailable
from serving.processes import die_with_parent
from serving.running import running

FLAGS = ("--http-port", "--grpc-port", "--metrics-port", "--port")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository whose release loads in a second."""
    folder = tmp_path_factory.mktemp("stack") / "repository"
    weights = folder.parent / "model.onnx"
    toy.write_onnx(weights)
    toy.add_model(folder, RECOMMENDER_ONNX, "onnxruntime", weights)
    write_release(folder, toy.LIMITS, items=toy.ITEMS - 1, models=(RECOMMENDER_ONNX,))
    return folder


def certificate(folder: Path, *, name: str = "localhost") -> tuple[Path, Path]:
    """Of one's own making, for `name` alone, by openssl as docs/security.md has it."""
    cert, key = folder / f"{name}.pem", folder / f"{name}-key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30",
         "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}",
         "-keyout", str(key), "-out", str(cert)],
        check=True, capture_output=True,
    )  # fmt: skip
    return cert, key


def recserve(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "serving.cli", *arguments],
        capture_output=True, text=True, check=False, env={**os.environ, **env},
    )  # fmt: skip


@contextmanager
def served(repository: Path, folder: Path, *more: str, **env: str) -> Iterator[str]:
    """Its address, once it serves."""
    ports = free_ports(4)
    flags = [str(part) for pair in zip(FLAGS, ports, strict=True) for part in pair]
    command = [sys.executable, "-m", "serving.cli", "serve", "--repository", str(repository)]
    log = folder / f"serve-{ports[-1]}.log"
    with log.open("w") as out:
        process = subprocess.Popen(
            [*command, *flags, *more], cwd=folder, env={**os.environ, **env},
            stdout=out, stderr=out, start_new_session=True, preexec_fn=die_with_parent(),
        )  # fmt: skip
    try:
        wait_until(lambda: "is served at" in log.read_text(), process, log)
        yield log.read_text().split("is served at ")[1].split()[0]
    finally:
        if process.poll() is None:
            os.kill(process.pid, signal.SIGTERM)
        assert process.wait(timeout=20) == 0, log.read_text()


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[Any], log: Path) -> None:
    until = time.monotonic() + 150
    while not condition():
        assert process.poll() is None and time.monotonic() < until, log.read_text()
        time.sleep(0.1)


def test_two_serve_one_repository_on_ports_of_their_own_and_each_is_found(
    repository: Path, tmp_path: Path
) -> None:
    own = ("--store", "sqlite:///own.db")
    with served(repository, tmp_path) as one, served(repository, tmp_path, *own) as two:
        assert one != two
        for url in (one, two):
            with RecserveClient(url) as client:
                assert not client.recommend(user_id="reader", deadline_ms=2000).fallback
        assert {server.url for server in running(repository)} == {one, two}
        assert len(list((tmp_path / ".recserve").glob("*/bento.log"))) == 2
        port = one.rpartition(":")[2]
        taken = recserve("serve", "--repository", str(repository), "--port", port)
        assert taken.returncode == 1 and f"port {port}" in taken.stderr


def test_a_second_one_with_the_events_of_the_first_is_refused_and_told_the_way(
    repository: Path, tmp_path: Path
) -> None:
    store = f"sqlite:///{tmp_path / 'events.db'}"
    with served(repository, tmp_path, "--store", store) as url:
        flags = [str(p) for pair in zip(FLAGS, free_ports(4), strict=True) for p in pair]
        second = recserve(
            "serve", "--repository", str(repository), "--store", store,
            "--log-dir", str(tmp_path / "logs"), *flags,
        )  # fmt: skip
        assert second.returncode == 1
        assert "open in another service" in second.stderr and "--store" in second.stderr
        assert second.stderr.count("\n") == 1
        with RecserveClient(url) as client:
            assert client.events([{"user_id": "u", "item_id": "i", "event": "view"}]).accepted == 1


def test_a_second_one_with_the_logs_of_the_first_is_refused_before_it_touches_them(
    repository: Path, tmp_path: Path
) -> None:
    logs = tmp_path / "logs"
    with served(repository, tmp_path, "--log-dir", str(logs)) as url:
        before = {path.name for path in logs.iterdir()}
        flags = [str(p) for pair in zip(FLAGS, free_ports(4), strict=True) for p in pair]
        second = recserve(
            "serve", "--repository", str(repository), "--log-dir", str(logs), *flags
        )  # fmt: skip
        assert second.returncode == 1
        assert str(logs) in second.stderr and "--log-dir" in second.stderr
        assert {path.name for path in logs.iterdir()} == before
        with RecserveClient(url) as client:
            assert client.ready()


def test_tls_and_keys_hold_for_every_way_to_ask(repository: Path, tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    made = recserve("keys", "add", "shop", "--scope", "recommend", "--keys",
                    str(tmp_path / "keys.json"))  # fmt: skip
    secret = made.stdout.strip()
    flags = ("--tls-cert", cert.name, "--tls-key", key.name, "--keys", "keys.json")
    with served(repository, tmp_path, *flags) as url:
        assert url.startswith("https://127.0.0.1:")
        (here,) = running(repository)
        with here.bento() as bento:  # as `releases promote` asks: by an address, not by name
            assert bento.release().release == 1
        named = url.replace("127.0.0.1", "localhost")

        env = {"RECSERVE_KEY": secret, "RECSERVE_CA": str(cert)}
        told = recserve("recommend", "--user", "reader", "--url", named, "--json", **env)
        assert told.returncode == 0 and '"fallback": false' in told.stdout, told.stderr
        load = recserve("load", named, "--repository", str(repository), "--requests", "20", **env)
        assert load.returncode == 0, load.stderr + load.stdout

        with RecserveClient(named, api_key=secret, ca=cert) as client:
            assert client.recommend(user_id="reader").release == 1
        with RecserveClient(named, ca=cert) as client, pytest.raises(Denied, match="no key"):
            client.recommend(user_id="reader")
        with RecserveClient(named, api_key=secret) as client, pytest.raises(Unavailable) as lost:
            client.recommend(user_id="reader")
        assert "CERTIFICATE_VERIFY_FAILED" in str(lost.value.value)
        with (
            RecserveClient(url, api_key=secret, ca=cert) as client,  # not its name
            pytest.raises(Unavailable),
        ):
            client.recommend(user_id="reader")
        other, _ = certificate(tmp_path, name="other")
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{url}/livez", verify=pinned(other))
        with pytest.raises(httpx.TransportError):  # there is no way around TLS
            httpx.get(f"{url}/livez".replace("https", "http"))

        wrong = recserve("recommend", "--user", "reader", "--url", named, **{**env,
                         "RECSERVE_KEY": "rsk_wrong"})  # fmt: skip
        assert wrong.returncode == 1 and "the key is not known" in wrong.stderr
        recserve("keys", "revoke", "shop", "--keys", str(tmp_path / "keys.json"))
        with RecserveClient(named, api_key=secret, ca=cert) as client:
            gone = time.monotonic() + 5
            with pytest.raises(Denied, match="not known"):
                while time.monotonic() < gone:
                    client.recommend(user_id="reader")
                    time.sleep(0.05)
    logs = "".join(path.read_text() for path in (tmp_path / ".recserve").glob("*/*.log"))
    assert "reader" not in logs and secret not in logs and "rsk_" not in logs


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        (("--tls-cert", "localhost.pem"), "--tls-key belong together"),
        (("--tls-cert", "localhost.pem", "--tls-key", "nothing.pem"), "No such file"),
        (("--tls-cert", "localhost.pem", "--tls-key", "other-key.pem"), "mismatch"),
        (("--tls-cert", "localhost.pem", "--tls-key", "locked.pem"), "without a password"),
        (("--keys", "nothing.json"), "No such file"),
        (("--keys", "localhost.pem"), "keys file"),
    ],
)
def test_files_that_no_server_can_use_are_refused_before_anything_starts(
    repository: Path, tmp_path: Path, flags: tuple[str, ...], word: str
) -> None:
    _, key = certificate(tmp_path)
    certificate(tmp_path, name="other")
    subprocess.run(
        ["openssl", "rsa", "-aes256", "-passout", "pass:secret", "-in", str(key), "-out",
         str(tmp_path / "locked.pem")],
        check=True, capture_output=True,
    )  # fmt: skip
    ports = [str(p) for pair in zip(FLAGS, free_ports(4), strict=True) for p in pair]
    done = subprocess.run(
        [sys.executable, "-m", "serving.cli", "serve", "--repository", str(repository), *ports,
         *flags],
        cwd=tmp_path, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2 and word in line
    assert not (tmp_path / ".recserve").exists()


def test_an_authority_that_is_no_file_of_certificates_is_refused_by_name(tmp_path: Path) -> None:
    for content, why in (("", "no certificate|NO_CERTIFICATE"), (None, "No such file")):
        file = tmp_path / f"{why[:3]}.pem"
        if content is not None:
            file.write_text(content)
        with pytest.raises(BadInput, match=why) as refused:
            RecserveClient("https://localhost:1", ca=file)
        assert str(file) in refused.value.what


def test_a_pinned_certificate_is_believed_under_any_name_and_no_other_is(tmp_path: Path) -> None:
    context = pinned(certificate(tmp_path)[0])
    assert context.verify_mode == ssl.CERT_REQUIRED and not context.check_hostname
