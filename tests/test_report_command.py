"""The command on a report's page makes the same report again: run as it stands, in a shell."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from adapted import Mean
from pages import Reader
from trainings import SMALL, write_little

from recommender import config, runs
from recommender.adapter import adapt
from recommender.config import Config
from recommender.data.config import DataConfig
from recommender.data.dataset import load
from recommender.protocols import split_of
from recommender.report.command import Source, again, beyond
from serving.cli import run as recserve

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a name that a shell would take apart."""
    folder = tmp_path_factory.mktemp("little") / "the shop's data"
    write_little(folder)
    (folder / "recserve.toml").write_text("[data]\nmin_occurrences = 2\n")
    return folder


def commands_of(page: Path) -> list[str]:
    return Reader(page.read_text()).commands


def run_in_shell(command: str, out: Path) -> None:
    """As somebody does who copies it from the page, with a folder for REPORT_DIR."""
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", command.replace("REPORT_DIR", shlex.quote(str(out)))],
        cwd=ROOT, env=env, capture_output=True, text=True, timeout=250, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"


def figures(path: Path) -> dict[str, Any]:
    """All that a report's JSON holds but the time that it took."""
    content: dict[str, Any] = json.loads(path.read_text())
    for details in content["training"].values():
        details.pop("seconds", None)
    return content


# Run as they stand


@pytest.fixture(scope="module")
def deep(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report whose recipe and data settings come from everywhere, with a model of our own."""
    tmp = tmp_path_factory.mktemp("deep")
    mine, out, recipe = tmp / "my own runs" / "mine", tmp / "first report", tmp / "recipe.toml"
    recipe.write_text(
        '[data]\nrepurchase = true\ncolumns = { age = "categorical" }\n'
        '[signals]\nuse = ["encoder", "ease", "similar", "trend"]\nhalf_life_days = [1, 7.5]\n'
    )
    chosen = ["data.max_events_per_user=15", "training.seed=3"]
    dataset, _ = load(folder, DataConfig.of(folder, recipe, chosen))
    adapt(
        dataset, lambda data: Mean(len(data.catalogue) + 1), mine, name="mine",
        config=config.read(), users=split_of(dataset, "temporal").train_valid,
    )  # fmt: skip
    settings = [flag for setting in (*SMALL, *chosen) for flag in ("--set", setting)]
    arguments = ["evaluate", str(folder), "--protocol", "temporal", "--models", "deep,item-knn",
                 "--preset", "quick", "--config", str(recipe), *settings]  # fmt: skip
    assert recserve([*arguments, "--run", str(mine), "--out", str(out)]) == 0
    return out


@pytest.mark.timeout(600)
def test_the_command_on_the_page_makes_every_figure_again(deep: Path, tmp_path: Path) -> None:
    _, command, _ = commands_of(deep / "temporal.html")
    assert command == figures(deep / "temporal.json")["command"]
    run_in_shell(command, tmp_path / "its copy")
    first, second = (figures(out / "temporal.json") for out in (deep, tmp_path / "its copy"))
    assert first == second
    assert {"deep", "item-knn", "mine", "encoder alone", "popularity of 7.5 days"} <= set(
        first["models"]
    )
    assert (deep / "temporal.html").stat().st_size == pytest.approx(
        (tmp_path / "its copy" / "temporal.html").stat().st_size,
        abs=50,  # seconds
    )


@pytest.mark.timeout(600)
def test_the_command_in_the_place_of_signals_left_out_measures_them(
    deep: Path, tmp_path: Path
) -> None:
    before = Reader((deep / "temporal.html").read_text())
    assert "A signal left out: next item" not in before.words
    run_in_shell(before.commands[0], tmp_path / "signals")
    words = Reader((tmp_path / "signals" / "temporal.html").read_text()).words
    assert "A signal left out: next item" in words and "not measured in this report" not in words
    plain, measured = (figures(out / "temporal.json") for out in (deep, tmp_path / "signals"))
    assert measured["models"]["deep"] == plain["models"]["deep"]  # the same training
    assert set(measured["training"]["deep"]["cost"]) == {"encoder", "ease", "similar", "trend"}


def test_the_run_that_the_page_exports_is_there(deep: Path) -> None:
    export = shlex.split(commands_of(deep / "temporal.html")[-1])
    assert export[:2] == ["recserve", "export"]
    run = runs.read(Path(export[2].replace("REPORT_DIR", str(deep))))
    assert run.blueprint.family in ("deep", "item-knn", "mine")


@pytest.mark.timeout(600)
def test_a_draw_of_hidden_items_and_its_runs_are_named(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "reports"
    asked = ["evaluate", str(folder), "--protocol", "cold-items", "--models", "content,item-knn"]
    assert recserve([*asked, "--draw", "2", "--out", str(out)]) == 0
    command, export = commands_of(out / "cold-items.html")
    assert runs.read(Path(shlex.split(export)[2].replace("REPORT_DIR", str(out))))
    run_in_shell(command, tmp_path / "again")
    drawn = figures(out / "cold-items.json")
    assert figures(tmp_path / "again" / "cold-items.json") == drawn
    # Another draw hides other items: it takes no run that has seen them.
    assert recserve([*asked, "--draw", "1", "--resume", "--out", str(out)]) == 0
    assert recserve([*asked, "--draw", "1", "--out", str(tmp_path / "fresh")]) == 0
    resumed, fresh = (figures(at / "cold-items.json") for at in (out, tmp_path / "fresh"))
    assert resumed["models"] == fresh["models"] != drawn["models"]


@pytest.mark.timeout(600)
def test_the_page_over_seeds_is_made_again_by_its_command(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "reports"
    asked = ["evaluate", str(folder), "--models", "item-knn", "--seed", "4", "--seeds", "2"]
    assert recserve([*asked, "--out", str(out)]) == 0
    (command,) = commands_of(out / "leave-one-out-seeds.html")
    run_in_shell(command, tmp_path / "again")
    names = ("leave-one-out-seeds.html", "leave-one-out-seeds.json")
    for name in names:
        assert (tmp_path / "again" / name).read_text() == (out / name).read_text()
    assert set(json.loads((out / names[1]).read_text())["seeds"]) == {"4", "5"}


# What stands in them


def settings_in(command: str) -> list[str]:
    words = shlex.split(command.replace("\\\n", ""))
    return [setting for flag, setting in pairwise(words) if flag == "--set"]


@pytest.mark.parametrize(
    "settings",
    [
        [],
        ["training.seed=7"],
        ["signals.use=encoder,age", "signals.half_life_days="],
        ["signals.half_life_days=0.25,1e-3,365", "training.learning_rate=1e-05"],
        ["training.device=cpu", "encoder.dropout=0.3333333333333333", "mixer.ablate=1"],
    ],
)
@pytest.mark.parametrize("preset", config.PRESETS)
def test_a_recipe_is_said_in_full_without_its_preset(preset: str, settings: list[str]) -> None:
    recipe = config.read(preset, settings=settings)
    said = settings_in(again("temporal", ["deep"], recipe, Source()))
    assert config.read("full", settings=said) == recipe
    assert recipe != Config() or not said


@pytest.mark.parametrize(
    "chosen",
    [
        {},
        {"min_rating": 3.5, "repeats": "last", "repurchase": True, "session_gap": 0},
        {"event_weights": {"view": 0.25, "in = out": -1}, "bins": 4},
        {"columns": {"free text, of 'it'": "text", 'a "b" $c': "ignore", "Größe": "numeric"}},
    ],
)
def test_how_the_data_was_read_is_said_beyond_the_folders_own_file(
    chosen: dict[str, Any], tmp_path: Path
) -> None:
    file = tmp_path / "recserve.toml"
    file.write_text('[data]\nmin_rating = 2\nbins = 4\n[data.columns]\nyear = "numeric"\n')
    own = DataConfig.of(tmp_path)
    used = DataConfig.from_table(
        {"min_rating": 2, "bins": 4, **chosen,
         "columns": {"year": "numeric", **chosen.get("columns", {})}}
    )  # fmt: skip
    source = Source(folder=str(tmp_path), data=beyond(own, used))
    said = settings_in(again("leave-one-out", ["deep"], Config(), source))
    assert DataConfig.of(tmp_path, None, said) == used
    assert bool(said) == bool(chosen)


def test_a_report_of_no_command_line_names_folders_by_their_place() -> None:
    command = again("leave-one-out", ["deep", "ease"], Config(), Source(runs=("RUN",)))
    assert command == (
        "recserve evaluate DIR --protocol leave-one-out --models deep,ease --out REPORT_DIR \\\n"
        "    --run RUN"
    )
