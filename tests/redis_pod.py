"""Redis under the command and the redis.conf of k8s/, on this machine."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import bento_process
from manifests import main_container, named
from pod import USER, running
from ports import free_ports

AS_USER = ("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--no-new-privs")


class RedisPod:
    """The command and the redis.conf of k8s/, on folders of the test's own, as its user."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (self.port,) = free_ports(1)
        self.auth = folder / "auth"
        for path in (folder / "data", self.auth):
            path.mkdir()
        if os.getuid() == 0:  # the volume is the group's by fsGroup
            os.chown(folder / "data", USER, USER)
            for parent in (folder, *folder.parents):
                if Path(tempfile.gettempdir()) in parent.parents:
                    parent.chmod(0o755)
        config = named("ConfigMap", "redis")["data"]["redis.conf"]
        self.here = {"/data": str(folder / "data"), "/etc/redis-auth": str(self.auth),
                     "/etc/redis/redis.conf": str(folder / "redis.conf"),
                     "port 6379": f"port {self.port}", "bind * -::*": "bind 127.0.0.1"}  # fmt: skip
        (folder / "redis.conf").write_text(self.placed(config))

    def placed(self, text: str) -> str:
        for theirs, ours in self.here.items():
            text = text.replace(theirs, ours)
        return text

    @contextmanager
    def runs(self) -> Iterator[subprocess.Popen[bytes]]:
        command = [self.placed(part) for part in main_container("redis")["command"]]
        if os.getuid() == 0:
            command = [*AS_USER, *command]
        log = self.folder / "log"
        with running(command, os.environ, log) as process:
            bento_process.wait_until(self.answers, process, log)
            yield process

    def answers(self, **environment: str) -> bool:
        """As the readiness probe asks."""
        probe = list(main_container("redis")["readinessProbe"]["exec"]["command"])
        asked = subprocess.run(
            [probe[0], "-p", str(self.port), *probe[1:]], env=os.environ | environment,
            capture_output=True, check=False,
        )  # fmt: skip
        return asked.returncode == 0
