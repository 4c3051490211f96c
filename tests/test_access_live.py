"""A real `bentoml serve` with keys: what its log says, who is held up; and docs/security.md."""

from __future__ import annotations

import copy
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import toy
import yaml
from bento_process import ROOT, Service, bentoml_serve, write_release
from manifests import EVERYWHERE, K8S, named
from ports import free_ports

from bento import keys
from recommender.contract import RECOMMENDER_ONNX, Limits
from serving.processes import die_with_parent

LIMITS = Limits(
    user_features=2, category_words=1, exclude=4, answers=20, length_buckets=(4, 16),
    max_batch_size=8,
)  # fmt: skip


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    file = tmp_path_factory.mktemp("keys") / "keys.json"
    scopes = {"shop": ["recommend"], "graph": ["metrics"], "ops": ["admin"]}
    return file, {name: keys.add(file, name, scopes[name]) for name in scopes}


@pytest.fixture(scope="module")
def service(
    tmp_path_factory: pytest.TempPathFactory, secrets: tuple[Path, dict[str, str]]
) -> Iterator[Service]:
    tmp = tmp_path_factory.mktemp("live")
    write_release(tmp / "repository", LIMITS, items=60, models=("recommender_onnx",))
    variables = {
        "RECSERVE_REPOSITORY": str(tmp / "repository"),
        "RECSERVE_TRITON": "grpc://127.0.0.1:18199",  # nobody
        "RECSERVE_KEYS": os.path.relpath(secrets[0], ROOT),  # its worker may start elsewhere
        "RECSERVE_PRIVATE_METRICS": "1",
        "RECSERVE_MAX_INFLIGHT": "2",
        "RECSERVE_LOG_FORMAT": "json",
        "RECSERVE_LOG_REQUESTS": "1",
    }
    with bentoml_serve(tmp, variables) as running:
        yield running


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_what_is_open_and_what_takes_which_key(
    service: Service, secrets: tuple[Path, dict[str, str]]
) -> None:
    _, key = secrets
    http = service.http
    for path in ("/livez", "/docs.json", "/v1/release"):
        assert http.get(path).status_code == 200
    for path, method, allowed in (
        ("/metrics", "GET", {"graph", "ops"}), ("/v1/recommend", "POST", {"shop", "ops"}),
        ("/v1/popular", "POST", {"shop", "ops"}),
    ):  # fmt: skip
        content = b"{}" if method == "POST" else None
        assert http.request(method, path, content=content).status_code == 401
        for name, one in key.items():
            reply = http.request(method, path, content=content, headers=bearer(one))
            assert reply.status_code == (200 if name in allowed else 403), (path, name)


def test_every_line_of_a_request_is_json_without_anybody_s_data(
    service: Service, secrets: tuple[Path, dict[str, str]]
) -> None:
    _, key = secrets
    http, body = service.http, {"user_id": "reader", "history": ["i17"], "n": 2}
    headers = {**bearer(key["shop"]), "X-Request-ID": "one-of-mine"}
    assert http.post("/v1/recommend", json=body, headers=headers).status_code == 200
    http.post(f"/v1/recommend?key={key['shop']}&user=reader", json=body)
    http.post("/v1/users/reader", json=body, headers=headers)
    http.post("/v1/recommend", json=body | {"n": "reader"}, headers=headers)
    http.post("/v1/recommend", json=body, headers={"X-Request-ID": key["shop"]})
    text = service.log.read_text()
    for word in ("reader", "i17", "rsk_", *key.values(), "127.0.0.1:5"):
        assert word not in text
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    mine = [line for line in lines if line.get("request_id") == "one-of-mine"]
    assert [(line["route"], line["status"]) for line in mine] == [
        ("/v1/recommend", 200), ("other", 404), ("/v1/recommend", 400),
    ]  # fmt: skip
    assert mine[0].items() >= {
        "logger": "bentoml.recserve.requests", "key": "shop", "release": 1, "variant": "default",
        "fallback": True,
    }.items()  # fmt: skip


def test_while_all_room_is_taken_others_hear_so_at_once_and_probes_are_answered(
    service: Service, secrets: tuple[Path, dict[str, str]]
) -> None:
    _, key = secrets
    port = int(service.url.rpartition(":")[2])
    head = (f"POST /v1/recommend HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key['shop']}\r\n"
            "Content-Length: 10\r\n\r\n").encode()  # fmt: skip
    with ExitStack() as slow:
        until = time.monotonic() + 1.5  # they are given 2 s for their bodies
        reply = service.http.post("/v1/popular", json={}, headers=bearer(key["shop"]))
        while reply.status_code == 200 and time.monotonic() < until:
            # Of the two that take all room one may be turned away itself, by what else is under
            # way as it comes: so they come until there is none.
            one = slow.enter_context(socket.create_connection(("127.0.0.1", port)))
            one.sendall(head)
            reply = service.http.post("/v1/popular", json={}, headers=bearer(key["shop"]))
        assert (reply.status_code, reply.headers["retry-after"]) == (429, "1")
        assert service.http.get("/livez").status_code == 200
        metrics = service.http.get("/metrics", headers=bearer(key["graph"]))
        counted = r'recserve_requests_total\{route="/v1/popular",status="429"\} [1-9]'
        assert re.search(counted, metrics.text)
    until = time.monotonic() + 10
    while True:
        reply = service.http.post("/v1/popular", json={}, headers=bearer(key["shop"]))
        if reply.status_code == 200:
            return
        assert time.monotonic() < until, reply.text


def test_a_key_is_revoked_in_a_running_service(
    service: Service, secrets: tuple[Path, dict[str, str]]
) -> None:
    file, _ = secrets
    late = bearer(keys.add(file, "late", ["recommend"]))

    def until_answered(status: int) -> None:
        until = time.monotonic() + 10
        while service.http.post("/v1/popular", json={}, headers=late).status_code != status:
            assert time.monotonic() < until
            time.sleep(0.05)

    until_answered(200)
    keys.revoke(file, "late")
    until_answered(401)


# docs/security.md

DOC = (ROOT / "docs" / "security.md").read_text()
LINES = [
    line for block in re.findall(r"```sh\n(.*?)```", DOC, re.DOTALL) for line in block.splitlines()
]


class Terminal:
    """Runs the page's lines in one folder, on ports that nobody uses."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = free_ports(4)
        self.env = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "RECSERVE_URL": f"http://127.0.0.1:{self.ports[3]}",
        }
        self.server: subprocess.Popen[bytes] | None = None

    def run(self, line: str) -> str:
        done = subprocess.run(
            ["bash", "-c", re.sub(r"\b3000\b", str(self.ports[3]), line)],
            cwd=self.folder, env=self.env, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def serve(self, line: str) -> None:
        self.stop()
        flags = ("--http-port", "--grpc-port", "--metrics-port", "--port")
        more = " ".join(f"{flag} {port}" for flag, port in zip(flags, self.ports, strict=True))
        log = self.folder / "serve.log"
        with log.open("wb") as out:
            self.server = subprocess.Popen(
                ["bash", "-c", f"exec {line} {more}"], cwd=self.folder, env=self.env,
                stdout=out, stderr=out, start_new_session=True, preexec_fn=die_with_parent(),
            )  # fmt: skip
        until = time.monotonic() + 150
        while "is served at" not in log.read_text():
            assert self.server.poll() is None and time.monotonic() < until, log.read_text()
            time.sleep(0.1)

    def stop(self) -> None:
        if self.server is not None:
            self.server.send_signal(signal.SIGTERM)
            self.server.wait(timeout=30)


def test_every_command_of_the_page_runs_as_written(tmp_path: Path) -> None:
    repository = tmp_path / "releases" / "shop"
    toy.write_onnx(tmp_path / "model.onnx")
    toy.add_model(repository, RECOMMENDER_ONNX, "onnxruntime", tmp_path / "model.onnx")
    write_release(repository, toy.LIMITS, items=toy.ITEMS - 1, models=(RECOMMENDER_ONNX,))
    terminal = Terminal(tmp_path)
    try:
        for line in LINES:
            if line.startswith("recserve serve"):
                terminal.serve(line)
                continue
            printed = terminal.run(line)
            if "/v1/" in line:
                assert '"items"' in printed, printed
        assert len(LINES) > 10
        assert "refused" in terminal.run("recserve recommend --user x 2>&1 || echo refused")
    finally:
        terminal.stop()


def test_every_setting_of_the_page_is_one_and_none_is_missing() -> None:
    from bento.settings import PARSERS

    told = set(re.findall(r"^\| `RECSERVE_(\w+)`", DOC, re.MULTILINE))
    ours = {"keys", "private_metrics", "rate", "burst", "max_inflight", "cors", "example_users",
            "log_level", "log_format", "log_requests"}  # fmt: skip
    assert {name.lower() for name in told} - {"key"} == ours
    assert ours <= PARSERS.keys()
    for link in re.findall(r"\]\(([^)#:]+)\)", DOC):
        assert (ROOT / "docs" / link).exists(), link


@pytest.mark.parametrize("name", ["bento", "bento-trial"])
def test_the_component_with_the_keys_makes_a_valid_deployment(name: str) -> None:
    component = yaml.safe_load((K8S / "optional" / "keys" / "kustomization.yaml").read_text())
    assert component["kind"] == "Component"
    (patch,) = component["patches"]
    assert re.fullmatch(patch["target"]["name"], name)
    deployment = copy.deepcopy(named(patch["target"]["kind"], name, EVERYWHERE))
    for change in yaml.safe_load(patch["patch"]):
        assert change["op"] == "add"
        *path, last = change["path"].removeprefix("/").split("/")
        place: Any = deployment
        for step in path:
            place = place[int(step) if isinstance(place, list) else step]
        assert last == "-"
        place.append(change["value"])
    kubernetes_validate.validate(deployment, "1.37", strict=True)
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    values = {one["name"]: one["value"] for one in container["env"]}
    mounts = {one["name"]: one["mountPath"] for one in container["volumeMounts"]}
    assert values["RECSERVE_KEYS"] == f"{mounts['keys']}/keys.json"
    volumes = {one["name"]: one for one in deployment["spec"]["template"]["spec"]["volumes"]}
    secret = volumes["keys"]["secret"]["secretName"]
    assert f"create secret generic {secret} --from-file=keys.json" in DOC
