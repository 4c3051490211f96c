"""The life of a real tritonserver: started, watched, killed, stopped, and nothing left behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
import toy
from triton_process import (
    MODELS,
    assert_equal,
    gone,
    infer,
    leftovers,
    load,
    start,
    stubs_of,
    three_ports,
    wait_until,
)

from recommender.errors import MachineError
from serving import tritonserver, wheel
from serving.running import Running


def test_a_model_whose_process_died_is_loaded_again(toy_server):
    wait_until(lambda: len(stubs_of(toy_server, "toy_onnx")) == 1, "unloaded versions live")
    (pid,) = stubs_of(toy_server, "toy_onnx")
    release = toy.release(toy_server.repository, MODELS)
    assert tritonserver.dead_models(release, toy_server.process) == ()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: gone(pid), "the stub lives")
    dead = tritonserver.dead_models(release, toy_server.process)
    assert dead == ("toy_onnx",)
    key = tritonserver.control_key(toy_server.process)
    tritonserver.revive(release, dead, Running(triton=toy_server.grpc, url="", key=key))
    arrays = toy.batch(2, 16)
    assert_equal(infer(toy_server.address("grpc"), "toy_onnx", arrays), toy.eager(arrays))


def test_two_servers_live_side_by_side_and_stop_leaves_nothing_of_one(
    toy_server, toy_repository, tmp_path
):
    other = start(toy_repository, tmp_path / "triton.log")
    try:
        load(other)
        arrays = toy.batch(2, 16)
        for one in (toy_server, other):
            assert_equal(infer(one.address("grpc"), "toy_onnx", arrays), toy.eager(arrays))
    finally:
        tritonserver.stop(other.process)
    assert leftovers(other) == []
    assert other.process.returncode == 0
    assert_equal(infer(toy_server.address("grpc"), "toy_onnx", arrays), toy.eager(arrays))


def test_a_killed_server_leaves_nothing_after_stop(toy_repository, tmp_path):
    one = start(toy_repository, tmp_path / "triton.log")
    try:
        load(one, ("toy_onnx",))
        one.process.kill()
        one.process.wait()
    finally:
        tritonserver.stop(one.process)
    wait_until(lambda: leftovers(one) == [], "something is left")


LAUNCHER = """
import sys, time
from pathlib import Path
from serving.tritonserver import Ports, launch
repository, log, *ports = sys.argv[1:]
process = launch(Path(repository), Ports(*map(int, ports)), log=Path(log))
print(process.pid, flush=True)
time.sleep(60)
"""


def test_a_server_does_not_outlive_a_launcher_that_was_killed(toy_repository, tmp_path):
    ports = three_ports()
    arguments = [str(toy_repository), str(tmp_path / "log"), ports.http, ports.grpc, ports.metrics]
    launcher = subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, *map(str, arguments)], stdout=subprocess.PIPE
    )
    try:
        pid = int(launcher.stdout.readline())
        assert psutil.pid_exists(pid)
    finally:
        launcher.kill()
        launcher.wait()
    wait_until(lambda: gone(pid), "tritonserver lives")


def test_shared_memory_of_a_dead_server_is_swept_at_the_next_launch(
    toy_server, toy_repository, tmp_path
):
    stale = Path("/dev/shm") / f"{tritonserver.SHM_NAME}{'f' * tritonserver.SHM_DIGITS}-left"
    stale.write_bytes(b"0")
    ours = leftovers(toy_server)
    one = start(toy_repository, tmp_path / "triton.log")
    tritonserver.stop(one.process)
    assert not stale.exists()
    assert leftovers(toy_server) == ours


def test_servers_that_start_at_once_share_one_whole_backend_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with ThreadPoolExecutor(8) as pool:
        folders = set(pool.map(lambda _: wheel.backend_directory(), range(8)))
    (folder,) = folders
    assert list((tmp_path / "recserve").iterdir()) == [folder]  # nothing half-built beside it
    for path in ("python/triton_python_backend_stub", "onnxruntime/model.py", "pytorch/model.py"):
        assert (folder / path).is_file()


def test_a_cache_that_cannot_be_written_is_refused_with_the_remedy(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(MachineError, match="XDG_CACHE_HOME"):
        wheel.backend_directory()


def test_a_taken_port_is_named_with_its_flag(toy_repository, tmp_path):
    ports = three_ports()
    with (
        socket.create_server(("127.0.0.1", ports.grpc)),
        pytest.raises(MachineError) as refusal,
    ):
        tritonserver.launch(toy_repository, ports, log=tmp_path / "log")
    assert str(ports.grpc) in refusal.value.what
    assert "--grpc-port" in refusal.value.remedy


def test_a_server_that_dies_is_reported_with_its_last_error(tmp_path):
    one = start(tmp_path / "no-such-repository", tmp_path / "triton.log")
    with pytest.raises(MachineError, match="no-such-repository"):
        load(one)
    tritonserver.stop(one.process)


LOADER = Path("/lib64/ld-linux-x86-64.so.2")  # glibc's, which prints what it has been told


@pytest.mark.skipif(not LOADER.exists(), reason="no glibc on x86-64")
@pytest.mark.parametrize(("own", "pages"), [
    (None, "hugetlb: 0x1"),
    ("glibc.malloc.hugetlb=2", "hugetlb: 0x2"),
    ("glibc.malloc.arena_max=3", "hugetlb: 0x0"),
], ids=["by itself", "as the user says", "the user says something else"])  # fmt: skip
def test_models_allocate_on_large_pages(own, pages, monkeypatch):
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    if own is not None:
        monkeypatch.setenv("GLIBC_TUNABLES", own)
    told = subprocess.run(
        [LOADER, "--list-tunables"], env=wheel.environment(), capture_output=True, text=True,
        check=True, timeout=20,
    ).stdout  # fmt: skip
    assert pages in told
