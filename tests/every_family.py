"""Every family, small: trained on data whose answer is known, and exported into one repository.

    the data     users walk along the items of a group (recommender/data/synthetic.py), and what an
                 item is about, its group, only its texts say: Chinese, without a space
    `deep`       the run and the release that many tests share, on data of such groups as well
    the others   the families that are counted, and examples/own_model.py through the adapter

So whoever walks along a group should be led on: by what people did, to the next item; by what the
texts say, within the group.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from adapted import OWN

from export import to_onnx, to_torchscript
from export.releases import publish
from recommender import config, runs
from recommender.adapter import adapt, builder
from recommender.contract import RECOMMENDER_TORCHSCRIPT, Array
from recommender.data.dataset import load
from recommender.data.synthetic import groups, successor, write_synthetic
from recommender.models.families import FAMILIES
from recommender.release import Release, read_release
from recommender.runs import Run
from recommender.train import train

COUNTED = FAMILIES[1:]
MINE = "my-model"
EVERY = ("deep", *COUNTED, MINE)
ITEMS, USERS, EVENTS = 120, 240, 4800
LENGTH = "training.length=40"  # other buckets than those of deep: each family has limits of its own
FORMS = ("图书", "电影", "音乐")  # categories, of which every group has as many
KINDS = ("入门", "新编", "研究", "大全", "故事", "漫谈")  # words that all groups share
ABOUT = (  # a group each
    ("红楼梦", "大观园", "林黛玉", "贾宝玉", "诗词", "古典小说"),
    ("深度学习", "神经网络", "机器人", "算法", "编程语言", "人工智能"),
    ("川菜", "火锅", "豆腐", "辣椒酱", "家常面条", "点心"),
)


@dataclass(frozen=True, kw_only=True)
class Every:
    """Runs by family, and the repository with a release of each, in the order of EVERY."""

    runs: Mapping[str, Run]
    folder: Path

    @property
    def repository(self) -> Path:
        return self.folder / "repository"

    def release(self, family: str) -> Release:
        return read_release(self.repository, EVERY.index(family) + 1)

    def onnx(self, family: str) -> Path:
        return self.release(family).home / to_onnx.FILE

    def torchscript(self, family: str) -> Path:
        """`deep` is released as such; of the others that can be traced, the same export."""
        if family == "deep":
            return self.repository / RECOMMENDER_TORCHSCRIPT / "1" / to_torchscript.FILE
        return self.folder / family / to_torchscript.FILE


def write_chinese(folder: Path) -> Path:
    """The data folder: walks as the synthetic data has them, items of which texts alone tell the
    group. Their description has figures and no space, as such texts do."""
    write_synthetic(folder, users=USERS, items=ITEMS, events=EVENTS, seed=11)
    item_ids = pl.read_csv(folder / "items.csv")["item_id"]
    rng, count = random.Random(11), groups(ITEMS)
    assert count == len(ABOUT)
    titles, texts = [], []
    for place in range(ITEMS):
        words = rng.sample(ABOUT[place % count], 3)
        titles.append("".join((*words[:2], rng.choice(KINDS))))
        texts.append(f"{rng.choice(KINDS)}，{words[2]}与{words[0]}，共{rng.randint(80, 900)}页。")
    pl.DataFrame(
        {
            "item_id": item_ids,
            "title": titles,
            "categories": [FORMS[place // count % len(FORMS)] for place in range(ITEMS)],
            "简介": texts,
        }
    ).write_csv(folder / "items.csv")
    return folder


def walk(run: Run, start: int, length: int = 7) -> list[int]:
    """Indexes of an item and of those that come after it, in the order of the data."""
    catalogue, found = run.blueprint.catalogue, [start]
    while len(found) < length:
        after = successor(catalogue.item_id(found[-1]), len(catalogue))
        found.append(catalogue.index(after))
    return found


def groups_of(run: Run, items: Array) -> Array:
    """By the ids of items: those of a group have the same remainder. Same shape."""
    catalogue = run.blueprint.catalogue
    place = [int(name.removeprefix("item-")) for name in catalogue.item_ids]
    found: Array = np.array([-1, *place])[items] % groups(len(catalogue))
    return found


def make(out: Path, repository: Path) -> None:
    """Below `out`: `repository`, the release of deep, with one of each other family more; their
    runs; the TorchScript of those that can be traced."""
    dataset = load(write_chinese(out / "data"))[0]
    shutil.copytree(repository, out / "repository")
    recipe = config.read("quick", settings=[LENGTH])
    for family in COUNTED:
        run = train(dataset, out / family, family=family, config=recipe)
        path = out / family / to_torchscript.FILE
        to_torchscript.write_torchscript(run.graph, run.blueprint.limits, path)
        publish(run, out / "repository")
    mine = adapt(dataset, builder(OWN), out / MINE, name=MINE, config=recipe)
    publish(mine, out / "repository")


def read(folder: Path, deep: Run) -> Every:
    """What `make` has made."""
    found = {family: runs.read(folder / family) for family in EVERY[1:]}
    return Every(runs={"deep": deep, **found}, folder=folder)
