"""Means over seeds: of every question, with each seed's figures beside them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from recommender import config, protocols
from recommender.data.dataset import Dataset
from recommender.protocols import Report
from recommender.seeds import over_seeds
from serving.cli import run as recserve


def test_the_mean_is_that_of_the_seeds_and_its_interval_that_of_users(
    dataset: Dataset, tmp_path: Path
) -> None:
    """A family whose recipe, not its seed, makes the difference: the arithmetic is the same."""

    def one(seed: int, out: Path) -> Report:
        recipe = config.read(settings=[f"signals.decay={0.1 + seed}"])
        return protocols.evaluate(
            dataset, "leave-one-out", out, families=("item-knn", "popularity"), config=recipe
        )

    found = over_seeds((0, 3), tmp_path, one)
    of_each = [r.models["item-knn"]["all"]["ndcg@10"] for r in found.each.values()]
    assert of_each[0]["mean"] != of_each[1]["mean"]
    mean = found.mean.models["item-knn"]["all"]["ndcg@10"]
    assert mean["mean"] == pytest.approx((of_each[0]["mean"] + of_each[1]["mean"]) / 2)
    assert 0 < mean["half"] <= max(figure["half"] for figure in of_each)
    less = found.mean.against["popularity"]["mean"]
    popularity = found.mean.models["popularity"]["all"]["ndcg@10"]["mean"]
    assert less == pytest.approx(mean["mean"] - popularity)
    written = json.loads((tmp_path / "leave-one-out-seeds.json").read_text())
    assert set(written["seeds"]) == {"0", "3"}
    assert (tmp_path / "seed-3" / "leave-one-out.html").is_file()


def test_the_command_prints_the_mean_and_a_row_a_seed(
    data_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["evaluate", str(data_folder), "--protocol", "temporal", "--out", str(tmp_path),
               "--models", "item-knn,popularity", "--seeds", "2"]  # fmt: skip
    assert recserve(command) == 0
    said = capsys.readouterr().out
    assert "temporal, mean of 2 seeds, warm" in said
    assert "ndcg@10 of item-knn, by seed" in said
    assert recserve([*command, "--resume"]) == 0  # finished runs are taken
    assert recserve(command) == 1
