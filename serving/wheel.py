"""The nvidia-pytriton wheel -> what tritonserver needs to start: backends, libraries, packages.

The wheel brings the server and the python backend but none of NVIDIA's native
backends: a folder of ours stands in for each (`serving/backends/`). Files only;
the wheel's package is found and never imported.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import sys
import sysconfig
import tempfile
from pathlib import Path

from recommender.errors import MachineError
from serving import doctor

BACKENDS = Path(__file__).parent / "backends"
LARGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}  # docs/triton.md
# Where a runtime keeps its CUDA half, below site-packages: without it KIND_AUTO means the CPU.
CUDA_LIBRARIES = {
    "onnxruntime": "onnxruntime/capi/libonnxruntime_providers_cuda.so",
    "pytorch": "torch/lib/libtorch_cuda.so",
}


def wheel() -> Path:
    """The wheel's tritonserver folder; found, not imported."""
    spec = importlib.util.find_spec("pytriton")
    if spec is None or not spec.submodule_search_locations:
        raise MachineError("nvidia-pytriton is not installed", remedy="Run `make install`.")
    return Path(spec.submodule_search_locations[0]) / "tritonserver"


def environment() -> dict[str, str]:
    """Libraries for the server and its stubs, packages for the backends' model.py; and large pages
    for what they allocate, unless glibc has been told something else."""
    libpython = doctor.libpython()
    libraries = [wheel().parents[1] / "nvidia_pytriton.libs"]
    libraries += [libpython.parent] if libpython else []
    packages = dict.fromkeys((sysconfig.get_path("purelib"), sysconfig.get_path("platlib")))
    inherited = os.environ.get("LD_LIBRARY_PATH", "")
    return {
        **LARGE_PAGES,
        **os.environ,
        "LD_LIBRARY_PATH": os.pathsep.join(filter(None, (*map(str, libraries), inherited))),
        "PYTHONPATH": os.pathsep.join(packages),
    }


def backend_directory() -> Path:
    """A folder with the wheel's python backend and ours, in the user's cache.

    Named by all that goes into it and moved into place whole: servers may start side by
    side, and an edit or another Python gives another folder.
    """
    home = wheel()
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = home / "python_backend_stubs" / python / "triton_python_backend_stub"
    sources = sorted(BACKENDS.glob("**/*.py"))
    key = hashlib.sha256(str(stub).encode())
    for source in sources:
        key.update(source.read_bytes())
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "recserve"
    final = cache / f"backends-{key.hexdigest()[:16]}"
    if final.is_dir():
        return final
    try:
        cache.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=".backends-", dir=cache))
        _assemble(building, home, stub)
        try:
            building.rename(final)
        except OSError:  # another server was faster
            shutil.rmtree(building)
            if not final.is_dir():
                raise
    except OSError as error:
        raise MachineError(
            f"{cache} cannot be written: {error}",
            remedy="Set XDG_CACHE_HOME to a folder that can.",
        ) from error
    return final


def _assemble(folder: Path, home: Path, stub: Path) -> None:
    (folder / "python").mkdir()
    for source in (*(home / "backends" / "python").iterdir(), stub):
        if source.is_file():
            shutil.copy(source, folder / "python" / source.name)
    (folder / "python" / stub.name).chmod(0o755)
    for backend in CUDA_LIBRARIES:
        (folder / backend).mkdir()
        shutil.copy(BACKENDS / backend / "model.py", folder / backend)
        shutil.copy(BACKENDS / "batching.py", folder / backend)


def has_cuda(backend: str) -> bool:
    """Can the runtime of `backend`, as installed here, use a GPU?"""
    return (Path(sysconfig.get_path("platlib")) / CUDA_LIBRARIES[backend]).exists()
