"""The one step of the Makefile that calls a system package manager: only where it must."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def make(packages: str, user: int | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", "-s", "-f", "-", "packages", f"PACKAGES={packages}"], cwd="/", user=user,
        input=(ROOT / "Makefile").read_text(), capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_nothing_is_installed_or_said_where_every_command_is_there() -> None:
    done = make("sh=no-such-package make=no-such-package-either")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_without_root_what_is_missing_is_named_with_the_command_that_installs_it() -> None:
    done = make("sh=dash no-such-command=its-package", user=65534)
    assert done.returncode != 0
    assert "Install them as root: apt-get install its-package\n" in done.stderr
    assert "dash" not in done.stderr
