"""Every command of the README runs, in its order; those for docker or a cluster must parse."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from ports import free_ports

from serving.processes import die_with_parent

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(sh|python|)\n(.*?)```", README, re.DOTALL)
COMMANDS = [line for kind, block in BLOCKS if kind == "sh" for line in block.strip().splitlines()]
PYTHON = "\n".join(block for kind, block in BLOCKS if kind == "python")
SERVERS = ("recserve serve", "RECSERVE_REPOSITORY=")  # stay in the foreground


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    one = Shell(tmp_path_factory.mktemp("readme"))
    yield one
    one.stop()


class Shell:
    """Runs the README's lines in one folder, on ports that are free."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = dict(zip(("3000", "3001", "8000", "8001", "8002"), free_ports(5), strict=True))
        self.servers: list[subprocess.Popen[bytes]] = []
        self.env = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "BENTOML_HOME": str(folder / "bentoml"),
            "BENTOML_DO_NOT_TRACK": "True",
            "RECSERVE_URL": f"http://127.0.0.1:{self.ports['3000']}",
        }

    def translated(self, line: str) -> str:
        for documented, free in self.ports.items():
            line = re.sub(rf"\b{documented}\b", str(free), line)
        if line.startswith("recserve serve"):
            flags = {"--port": "3000", "--http-port": "8000", "--grpc-port": "8001",
                     "--metrics-port": "8002"}  # fmt: skip
            line += "".join(f" {flag} {self.ports[port]}" for flag, port in flags.items())
        return line

    def run(self, line: str) -> str:
        # bentoml reads the build options of the repository it stands in
        cwd = ROOT if line.startswith("bentoml build") else self.folder
        done = subprocess.run(
            ["bash", "-c", self.translated(line)], cwd=cwd, env=self.env,
            capture_output=True, text=True, timeout=250, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def serve(self, line: str, port: str) -> None:
        line = self.translated(line).replace("=releases", f"={self.folder}/releases")
        cwd = self.folder if line.startswith("recserve") else ROOT
        self.servers.append(
            subprocess.Popen(
                ["bash", "-c", f"exec env {line}"],
                cwd=cwd,
                env=self.env,
                start_new_session=True,
                preexec_fn=die_with_parent(),
            )
        )
        until = time.monotonic() + 120
        while time.monotonic() < until:
            assert self.servers[-1].poll() is None, f"{line} ended"
            try:
                if httpx.get(f"http://127.0.0.1:{self.ports[port]}/readyz").status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(0.3)
        pytest.fail(f"{line} is not ready in time")

    def stop(self) -> None:
        for server in reversed(self.servers):
            server.send_signal(signal.SIGTERM)
            server.wait(timeout=30)


@pytest.mark.timeout(900)  # some twenty commands
def test_every_command_runs_as_written(shell: Shell) -> None:
    ran = 0
    for line in COMMANDS:
        if line.startswith("make "):
            continue
        if line.startswith(SERVERS):
            shell.serve(line, "3000" if line.startswith("recserve") else "3001")
        else:
            printed = shell.run(line)
            if "/v1/" in line:
                wanted = '"accepted":1' if "/v1/events" in line else '"item_id"'
                assert wanted in printed, printed
                assert '"error"' not in printed
        ran += 1
    assert ran > 15
    code = shell.translated(PYTHON)
    assert "Item" in shell.run(f"python - <<'END'\n{code}\nEND")


def test_commands_that_need_docker_or_a_cluster_are_valid_shell() -> None:
    (block,) = [b for kind, b in BLOCKS if kind == "" and "docker build" in b]
    subprocess.run(["bash", "-n", "-c", block], check=True)
    assert "kubectl apply -f k8s/" in block


def test_links_and_folders_of_the_readme_exist() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    folders = re.findall(r"^\| `(\w+/)` \|", README, re.MULTILINE)
    assert len(folders) >= 8
    for path in [*links, *folders]:
        assert (ROOT / path).exists(), path
