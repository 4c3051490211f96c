"""What `recserve train` says a catalogue's size changes is what the training then does."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from trainings import small, write_little

from recommender import config, fitting
from recommender.data.dataset import Dataset
from recommender.models import signals, trends
from recommender.models.families import FAMILIES, Blueprint
from recommender.sizes import by_size
from recommender.train import blueprint_of, fit_run
from serving.cli import run as recserve


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("little") / "data"
    write_little(folder)
    return folder


@pytest.fixture(scope="module")
def little(folder: Path) -> Dataset:
    from recommender.data.dataset import load

    return load(folder)[0]


def sized(dataset: Dataset, items: int, family: str = "deep", preset: str = "full") -> Blueprint:
    """As of a catalogue of so many items."""
    catalogue = replace(dataset.catalogue, item_ids=tuple(map(str, range(items))))
    blueprint = blueprint_of(family, dataset.users, dataset, config.read(preset))
    return replace(blueprint, catalogue=catalogue)


CUTS, DRAWN = "3 cuts in time instead of 9", "the encoder's loss over 2,048 drawn items"
ALONE = "neighbours an item in each table, and no rest"


@pytest.mark.parametrize(
    ("items", "said"),
    [
        (3_332, []),
        (3_333, ["trends at 799 moments instead of 800"]),
        (3_999, ["trends at 666 moments instead of 800"]),
        (4_000, [CUTS, "at most 9,997 next-item questions instead of 10,000", "trends at 666"]),
        (4_095, [CUTS, "at most 9,765", "trends at 651"]),
        (4_096, [CUTS, "at most 9,763", DRAWN, "trends at 650"]),
        (6_000, [CUTS, "at most 6,665", DRAWN, "trends at 444"]),
        (6_001, [CUTS, "at most 6,664", DRAWN, "trends at 444", f"128 {ALONE}"]),
        (11_717, [CUTS, "at most 3,413", DRAWN, "trends at 227", f"128 {ALONE}"]),
        (11_718, [CUTS, "at most 3,413", DRAWN, "trends at 227", f"127 {ALONE}"]),
        (29_410, [CUTS, "at most 1,360", DRAWN, "trends at 90", f"51 {ALONE}"]),
        (29_411, [CUTS, "at most 1,359", DRAWN, "trends at 90", f"50 {ALONE}"]),
        (90_000, [CUTS, "at most 444", DRAWN, "trends at 29", f"50 {ALONE}"]),
    ],
)
def test_the_sizes_of_the_documentation_are_those_at_which_defaults_change(
    little: Dataset, items: int, said: list[str]
) -> None:
    found = by_size(sized(little, items), little.users)
    assert len(found) == len(said)
    assert all(phrase.startswith(start) for phrase, start in zip(found, said, strict=True))


def test_the_documentation_names_them() -> None:
    page = (Path(__file__).parent.parent / "docs" / "models.md").read_text()
    part = page[page.index("## By size of the catalogue") :].split("\n## ")[0]
    for size in ("3,333", "4,000", "4,096", "6,000", "11,718", "29,411", "100"):
        assert size in part, size


def test_the_documentation_names_every_signal_and_every_setting_with_its_default() -> None:
    page = (Path(__file__).parent.parent / "docs" / "models.md").read_text()
    named = page.split("## Signals and settings")[1].split("## Beside the recommender")[0]
    rows = [line.split(" | ") for line in named.splitlines() if line.startswith("| `")]
    signals = {name for row in rows if len(row) == 2 for name in re.findall(r"`(\w+)`", row[0])}
    assert signals == set(config.SIGNALS)
    told: dict[str, str] = {}
    for row in (row for row in rows if len(row) == 3):
        section = re.findall(r"`(\w+)\.", row[0])[0]
        keys = [key.removeprefix(f"{section}.") for key in re.findall(r"`([\w.]+)`", row[0])]
        values = [row[1]] if len(keys) == 1 else row[1].split(", ")
        told |= {f"{section}.{k}": v for k, v in zip(keys, values, strict=True)}
    defaults = {
        f"{section}.{key}": value
        for section, settings in config.to_json(config.Config()).items()
        for key, value in settings.items()
    }
    assert told.keys() == defaults.keys()
    assert told.pop("signals.use") == "all"
    given = config.read(settings=[f"{key}={value}" for key, value in told.items()])
    assert given == config.Config()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_told_of_what_it_uses_only(little: Dataset, family: str) -> None:
    found = by_size(sized(little, 20_000, family), little.users)
    told = {"deep": 5, "popularity": 0}.get(family, 1)
    assert len(found) == told
    few = sized(little, 20_000, family)
    few = replace(few, config=config.read(settings=["signals.ease_items=50"]))
    beyond = [phrase for phrase in by_size(few, little.users) if phrase not in found]
    wanted = ["EASE of the 50 most popular items only"] if family in ("deep", "ease") else []
    assert beyond == wanted


def test_what_is_said_is_what_is_fitted(little: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the constants brought down to a catalogue of sixty items."""
    items = len(little.catalogue) + 1
    monkeypatch.setattr(fitting, "_MANY", items - 1)
    monkeypatch.setattr(fitting, "_CELLS", 100 * items)
    monkeypatch.setattr(signals, "_CELLS", 55 * items)
    monkeypatch.setattr(signals, "_DENSE", items - 2)
    monkeypatch.setattr(trends, "_CELLS", 6 * items * 40)
    recipe = small("mixer.cuts=5", "signals.neighbours=58", "signals.ease_items=30")
    blueprint = blueprint_of("deep", little.users, little, recipe)
    assert by_size(blueprint, little.users) == [
        "3 cuts in time instead of 5",
        "at most 100 next-item questions instead of 300",
        "trends at 40 moments instead of 800",
        "EASE of the 30 most popular items only",
        "55 neighbours an item in each table, and no rest",
    ]
    asked: set[str] = set()
    seen: dict[str, int] = {}

    def progress(what: str, done: int, total: int) -> None:
        asked.add(what.partition(",")[0])
        seen[what] = total

    run = fit_run(blueprint, little.users, little, progress=progress)
    assert {name for name in asked if name.startswith("cut ")} == {"cut 1", "cut 2", "cut 3"}
    tables = run.graph.scorer.tables
    assert tables.similar_item.shape[1] == tables.ease_item.shape[1] == 55
    assert tables.rest("similar") is None
    assert len(np.unique(np.nonzero(tables.ease_weight.numpy())[0])) == 30
    assert tables.trend.shape[1] == pytest.approx(40, abs=2)
    views = fitting.moments_of(fitting.Encoders(blueprint, None, progress), little.users)[0]
    assert len(views[0].queries) == 100 and len(views) == 1 + 3


def test_train_says_it_before_it_begins(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = ["train", str(folder), "--model", "ease"]
    assert recserve([*asked, "--out", str(tmp_path / "small")]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1
    asked += ["--set", "signals.ease_items=30"]
    assert recserve([*asked, "--out", str(tmp_path / "large")]) == 0
    first, _ = capsys.readouterr().out.splitlines()
    assert first == "60 items, so: EASE of the 30 most popular items only (docs/models.md)"
