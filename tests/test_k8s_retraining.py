"""A night of retraining as k8s/ has it: every container's command with its environment, in its
order, on small data and with a short recipe; then the batch job on what it left."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
from manifests import Manifest, containers, workloads
from stores import event

from bento.store import connect

# The manifest's is the full one, which takes minutes on any data.
SHORT = ("--preset", "quick", "--set", "training.epochs=1", "--set", "mixer.epochs=1",
         "--set", "mixer.cuts=2", "--set", "mixer.queries=200")  # fmt: skip
TRAINING = ("train", "evaluate")
EVENTS = 40


class Pod:
    """Its volumes are folders; its image is this machine's Python."""

    def __init__(self, volumes: Path, name: str, store: str) -> None:
        self.volumes, self.given = volumes, {"POD": name, "RECSERVE_STORE": store}
        for volume in ("training", "work", "tmp"):
            (volumes / volume).mkdir(exist_ok=True)

    def run(self, container: Manifest) -> None:
        values = {one["name"]: one["value"] for one in container["env"] if "value" in one}
        known = {**self.given, **values}
        words = [
            re.sub(r"\$\((\w+)\)", lambda found: known[found[1]], self.placed(word))
            for word in container["command"]
        ]
        assert words[0] == "recserve"
        more = SHORT if words[1] in TRAINING else ()
        done = subprocess.run(
            [sys.executable, "-m", "serving.cli", *words[1:], *more],
            cwd=self.volumes / "work",
            env={**os.environ, **{name: self.placed(value) for name, value in values.items()},
                 "OMP_NUM_THREADS": "1"},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, (words, done.stdout[-2000:], done.stderr[-2000:])

    def placed(self, word: str) -> str:
        return re.sub(r"(?<![\w.])/(?=(training|work|tmp)(/|$))", f"{self.volumes}/", word)


def test_a_night_ends_with_a_release_that_serves_and_scores_everybody(
    tmp_path: Path, data_folder: Path
) -> None:
    store = f"sqlite:///{tmp_path}/events.db"
    asyncio.run(filled(store))
    night = Pod(tmp_path, "retraining-1", store)
    shutil.copytree(data_folder, tmp_path / "training" / "data")
    pods = workloads()
    for container in containers(pods["retraining"]):
        night.run(container)
    repository = tmp_path / "training" / "model_repository"
    index = json.loads((repository / "releases.json").read_text())
    assert index["serving"] == 1
    assert (tmp_path / "training" / "reports" / "retraining-1").is_dir()
    users = json.loads((repository / "recommender_onnx" / "1" / "release.json").read_text())
    assert users["family"] == "deep"

    (scoring,) = containers(pods["batch-scoring"])
    scoring = {**scoring, "env": [*scoring["env"], {"name": "RUN", "value": "retraining-1"}]}
    night.run(scoring)
    scored = pl.read_csv(tmp_path / "training" / "batch" / "retraining-1.csv")
    assert scored["user_id"].n_unique() > 300  # those of the base, and who came since
    assert "newcomer-0" in scored["user_id"].to_list()


async def filled(store: str) -> None:
    """Events of people whom the base does not know, after all that it holds."""
    opened = connect(store)
    at = 1_743_600_000
    events = [
        event(n, user=f"newcomer-{n % 4}", item=f"item-{1 + n:06d}", at=at + 60 * n)
        for n in range(EVENTS)
    ]
    await opened.add(events, weights={})
    await opened.close()
