"""Means over seeds: of every question, with each seed's figures beside them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from pages import Reader

from recommender import config, protocols
from recommender.data.dataset import Dataset
from recommender.protocols import Report
from recommender.report.sections import signed
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

    found = over_seeds(range(0, 6, 3), tmp_path, one)
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
    assert str(tmp_path / "temporal-seeds.html") in " ".join(said.split("\n"))
    assert "temporal, mean of 2 seeds, warm" in said
    assert "ndcg@10 of item-knn, by seed" in said
    assert recserve([*command, "--resume"]) == 0  # finished runs are taken
    assert recserve(command) == 1


def test_the_page_shows_the_mean_and_how_far_seeds_spread_it(
    dataset: Dataset, tmp_path: Path
) -> None:
    def one(seed: int, out: Path) -> Report:
        recipe = config.read(settings=[f"signals.decay={0.1 + seed}", f"training.seed={seed}"])
        families = ("item-knn", "popularity")
        return protocols.evaluate(dataset, "temporal", out, families=families, config=recipe)

    found = over_seeds(range(1, 4), tmp_path, one)
    read = Reader((tmp_path / "temporal-seeds.html").read_text())
    for group, queries in found.mean.queries.items():
        assert (f"{group}: {queries:,} queries" in read.words) == (queries > 0)
        if not queries:
            continue
        for metric in ("ndcg@10", "hr@10", "mrr@20"):
            for family, of in found.mean.models.items():
                figure = of[group][metric]
                each = [
                    report.models[family][group][metric]["mean"] for report in found.each.values()
                ]
                row = [f"{figure['mean']:.4f} ± {figure['half']:.4f}", *(f"{v:.4f}" for v in each)]
                spread = np.std(each, ddof=1)
                assert spread < 1e-9 or family == "item-knn"
                assert " ".join([family, *row, f"{spread:.4f}"]) in read.words
    assert len({r.models["item-knn"]["all"]["ndcg@10"]["mean"] for r in found.each.values()}) == 3
    gap = found.mean.against["popularity"]
    assert f"minus popularity {signed(gap['mean'])} ± {gap['half']:.4f}" in read.words
    assert "from seed to seed" in read.words.lower()
    assert found.mean.command is not None
    assert "--set training.seed=1" in found.mean.command
    assert found.mean.command.endswith("--seeds 3")
    assert " ".join(found.mean.command.split()) in read.words
