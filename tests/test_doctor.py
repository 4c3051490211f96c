"""What the doctor says of this machine, and of machines it must refuse."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from serving import doctor

FREE = ["--http-port", "18201", "--grpc-port", "18202", "--metrics-port", "18203"]
FREE += ["--port", "13101"]
ROOT = Path(doctor.__file__).parent.parent


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "serving.cli", "doctor", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_this_machine_lacks_nothing() -> None:
    done = run("--json", *FREE)
    lacking = [check for check in json.loads(done.stdout) if check["state"] == "lacks"]
    assert lacking == []
    assert done.returncode == 0


def test_the_table_names_every_check() -> None:
    table = run(*FREE).stdout
    for name in ("platform", "C library", "Python", "libpython", "numpy < 2", "tritonserver"):
        assert name in table


def test_a_taken_port_is_lacking_and_the_remedy_names_its_flag() -> None:
    with socket.create_server(("127.0.0.1", 13102)):
        done = run("--json", *FREE[:-1], "13102")
        (lacking,) = [c for c in json.loads(done.stdout) if c["state"] == "lacks"]
    assert done.returncode == 1
    assert lacking["name"] == "port 13102"
    assert f"(pid {os.getpid()})" in lacking["seen"]
    assert "--port" in lacking["remedy"]


def test_every_lack_comes_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PYTHONS", ((2, 7),))
    monkeypatch.setattr(doctor, "GLIBC", (99, 0))
    monkeypatch.setattr(doctor, "MEMORY_GIB", 10**6)
    monkeypatch.setattr(doctor, "DISK_RUN_GIB", 10**6)
    monkeypatch.setattr(doctor, "SHM_MB", 10**9)
    lacking = {c.name: c.remedy for c in doctor.machine() if c.state == doctor.LACKS}
    assert set(lacking) == {"Python", "C library", "memory", "disk", "/dev/shm"}
    assert all(lacking.values())


def test_the_machine_checks_run_in_a_python_with_nothing_installed() -> None:
    bare = [sys.executable, "-I", "-S", "-c"]
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import serving.doctor as d; d.machine()"
    subprocess.run([*bare, code], check=True, timeout=60)


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_install_refuses_a_lacking_machine_before_it_downloads(tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "serving").mkdir()
    (tmp_path / "serving" / "__init__.py").touch()  # before any other on the path
    text = (ROOT / "serving" / "doctor.py").read_text()
    (tmp_path / "serving" / "doctor.py").write_text(text.replace("(2, 35)", "(99, 0)"))
    done = subprocess.run(
        ["make", "install", f"PYTHON={sys.executable}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode != 0
    assert "recserve: C library: glibc" in done.stderr
    assert not (tmp_path / ".venv").exists()
