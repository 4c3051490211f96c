"""A release is whole or not there, and says what is in it."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from cold_data import recserve

from export.committed import configs
from export.index import gc, locked
from export.parity import check_parity, compare
from export.releases import publish
from export.triton_config import backend_of, config_text
from recommender import config
from recommender.contract import (
    EXPLAINER,
    RANKER,
    RECOMMENDER_ONNX,
    RECOMMENDER_TORCHSCRIPT,
    SIMILAR_ITEMS,
)
from recommender.data.dataset import Dataset
from recommender.errors import ReleaseError
from recommender.models.explain import signal_names
from recommender.provenance import code_digest
from recommender.release import Release, read_index, read_release
from recommender.runs import Run
from recommender.train import blueprint_of, fit_run
from serving.promotion import promote

ROOT = Path(__file__).parent.parent
BESIDE = (SIMILAR_ITEMS, RANKER, EXPLAINER)


@pytest.fixture(scope="module")
def popularity(dataset: Dataset) -> Run:
    """The cheapest family to export."""
    blueprint = blueprint_of("popularity", dataset.users, dataset, config.read())
    return fit_run(blueprint, dataset.users, dataset)


@pytest.fixture(scope="module")
def published(popularity: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three releases of it."""
    folder = tmp_path_factory.mktemp("popularity") / "repository"
    assert [publish(popularity, folder) for _ in range(3)] == [1, 2, 3]
    return folder


@pytest.fixture
def three(published: Path, tmp_path: Path) -> Path:
    """A copy of them, to write to."""
    return Path(shutil.copytree(published, tmp_path / "repository"))


def test_a_release_names_its_files_and_they_are_what_was_written(
    run: Run, repository: Path
) -> None:
    release = read_release(repository)
    assert release.version == 1
    assert release.models == (RECOMMENDER_ONNX, RECOMMENDER_TORCHSCRIPT, *BESIDE)
    found = {str(p.relative_to(repository)) for m in release.models
             for p in (repository / m / "1").iterdir()}  # fmt: skip
    assert found == {*release.files, f"{RECOMMENDER_ONNX}/1/release.json"}
    assert {report["rows"] > 200 for report in release.details["parity"].values()} == {True}
    assert set(release.details["parity"]) == set(release.models)
    assert tuple(release.details["signals"]) == signal_names(run.blueprint)
    assert len(release.catalogue) == 150
    assert len(release.users) == 300


@pytest.mark.parametrize(
    "name", ["recommender_onnx/1/model.onnx", "recommender_torchscript/1/model.pt",
             "recommender_onnx/1/catalogue.parquet"]
)  # fmt: skip
def test_one_flipped_bit_is_found(repository: Path, tmp_path: Path, name: str) -> None:
    copy = tmp_path / "repository"
    shutil.copytree(repository, copy)
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(ReleaseError, match=f"{Path(name).name} is corrupted"):
        read_release(copy)


def test_a_repository_without_a_release_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match="recserve export"):
        read_release(tmp_path)


def test_the_first_release_serves_and_later_ones_wait(three: Path) -> None:
    index = read_index(three)
    assert index.serving == 1
    assert sorted(index.releases) == [1, 2, 3]
    assert read_release(three, 2).models == (
        "popularity_onnx", *(f"popularity_{kind}" for kind in BESIDE)
    )  # fmt: skip


def test_a_promoted_release_serves_and_a_broken_one_is_refused(three: Path) -> None:
    promote(three, 2)
    assert read_release(three).version == 2
    (three / "popularity_onnx" / "3" / "model.onnx").write_bytes(b"broken")
    for version, reason in ((3, "corrupted"), (7, "not in")):
        with pytest.raises(ReleaseError, match=reason):
            promote(three, version)
    assert read_release(three).version == 2


def test_the_same_run_exported_twice_gives_the_same_bytes(run_folder: Path, tmp_path: Path) -> None:
    """By the command, in processes of their own. release.json alone says when."""
    for _ in range(2):
        done = recserve("export", run_folder, "--repository", tmp_path)
        assert done.returncode == 0, done.stderr
    first, second = (read_release(tmp_path, version) for version in (1, 2))
    assert _by_name(first) == _by_name(second)
    told = {key for key in first.details if first.details[key] != second.details[key]}
    assert told <= {"version", "created", "files"}
    for path in tmp_path.rglob("model.*"):
        assert str(ROOT).encode() not in path.read_bytes(), f"{path} names this machine's folders"


def _by_name(release: Release) -> dict[str, str]:
    return {name.replace(f"/{release.version}/", "/"): sha for name, sha in release.files.items()}


def test_a_release_says_what_it_takes_to_make_it_again(run: Run, repository: Path) -> None:
    told = read_release(repository).details
    assert told["data"] == run.digest
    assert told["config"]["training"]["seed"] == run.blueprint.config.training.seed
    assert told["training"]["code"] == code_digest(["recommender"])
    assert told["exported"]["code"] == code_digest(["recommender", "export"])
    assert told["exported"]["torch"] == torch.__version__


def test_one_changed_source_line_changes_the_code_digest(tmp_path: Path) -> None:
    assert len({code_digest(["recommender"]), code_digest(["export"]),
                code_digest(["recommender", "export"])}) == 3  # fmt: skip


def test_an_interrupted_export_leaves_the_release_before_it(
    popularity: Run, tmp_path: Path
) -> None:
    publish(popularity, tmp_path)
    half = tmp_path / "popularity_onnx" / "2"  # renamed, but never named in releases.json
    half.mkdir()
    (half / "model.onnx").write_bytes(b"half")
    (tmp_path / "popularity_onnx" / ".tmp-3").mkdir()
    assert read_release(tmp_path).version == 1
    assert publish(popularity, tmp_path) == 4  # numbers are never used twice
    assert {f.name for f in gc(tmp_path)} == {"2", ".tmp-3"}
    assert sorted(read_index(tmp_path).releases) == [1, 4]
    read_release(tmp_path, 4)


def test_two_exports_at_once_do_not_mix(popularity: Run, tmp_path: Path) -> None:
    with (
        locked(tmp_path),
        pytest.raises(ReleaseError, match="being written by another process"),
    ):
        publish(popularity, tmp_path)
    assert not (tmp_path / "releases.json").exists()


def test_a_killed_export_holds_no_lock(popularity: Run, tmp_path: Path) -> None:
    holder = multiprocessing.get_context("spawn").Process(target=_die_locked, args=(tmp_path,))
    holder.start()
    holder.join()
    assert publish(popularity, tmp_path) == 1


def _die_locked(folder: Path) -> None:
    import os

    with locked(folder):
        os._exit(9)


def test_other_limits_need_another_repository(
    popularity: Run, dataset: Dataset, tmp_path: Path
) -> None:
    publish(popularity, tmp_path)
    recipe = config.read(settings=["training.length=100"])
    blueprint = blueprint_of("popularity", dataset.users, dataset, recipe)
    with pytest.raises(ReleaseError, match="--repository"):
        publish(fit_run(blueprint, dataset.users, dataset), tmp_path)
    assert sorted(read_index(tmp_path).releases) == [1]


@pytest.mark.parametrize("model", [RECOMMENDER_ONNX, *BESIDE])
def test_a_file_of_other_weights_fails_parity_and_nothing_is_published(
    run: Run, popularity: Run, repository: Path, model: str
) -> None:
    blueprint = run.blueprint
    with pytest.raises(ReleaseError, match=f"parity failed.*{model}"):
        check_parity(
            popularity.graph,
            {model: repository / model / "1" / "model.onnx"},
            limits=blueprint.limits, items=blueprint.items, clock=blueprint.clock, users=run.users,
        )  # fmt: skip


def test_a_model_of_nan_is_never_released(dataset: Dataset, tmp_path: Path) -> None:
    blueprint = blueprint_of("popularity", dataset.users, dataset, config.read())
    broken = fit_run(blueprint, dataset.users, dataset)
    torch.fill_(broken.graph.scorer.popularity, torch.nan)
    with pytest.raises(ReleaseError, match="no answer"):
        publish(broken, tmp_path)
    assert not (tmp_path / "releases.json").exists()
    assert not list(tmp_path.glob("*/*1*"))


def test_parity_allows_a_swap_of_ties_only() -> None:
    wanted = {"item": np.array([[1, 2, 3]]), "score": np.array([[3, 2, 2]], np.float32)}
    swapped = {"item": np.array([[1, 3, 2]]), "score": wanted["score"]}
    compare(wanted, swapped, "ties")
    wrong = {"item": np.array([[2, 1, 3]]), "score": wanted["score"]}
    with pytest.raises(ReleaseError, match="rank 1"):
        compare(wanted, wrong, "no ties")


def test_the_onnx_file_names_no_path_of_this_machine(repository: Path) -> None:
    path = repository / RECOMMENDER_ONNX / "1" / "model.onnx"
    assert str(ROOT).encode() not in path.read_bytes()
    assert b"site-packages" not in path.read_bytes()
    model = onnx.load(path, load_external_data=False)
    assert not any(t.external_data for t in model.graph.initializer)


def test_the_torchscript_creates_tensors_where_its_inputs_are(repository: Path) -> None:
    """Else one traced on a CPU fails on a GPU. None is here to try: no device stands in the graph,
    and it does create tensors."""
    with warnings.catch_warnings(action="ignore"):  # deprecated in favour of torch.export
        module = torch.jit.load(repository / RECOMMENDER_TORCHSCRIPT / "1" / "model.pt")
    graph = module.inlined_graph
    constants = graph.findAllNodes("prim::Constant", True)
    assert [c for c in constants if c.output().type().kind() == "DeviceObjType"] == []
    assert graph.findAllNodes("aten::arange", True)
    assert graph.findAllNodes("prim::device", True)


def test_configs_in_the_repository_are_what_the_code_generates(repository: Path) -> None:
    release = read_release(repository)
    for model in release.models:
        text = (repository / model / "config.pbtxt").read_text()
        assert text == config_text(model, backend_of(model), release.limits)


def test_committed_configs_are_those_of_movielens() -> None:
    for path, text in configs().items():
        assert path.read_text() == text, f"{path} has drifted: run `make configs`"


def test_release_json_is_readable_by_anybody(repository: Path) -> None:
    raw = json.loads((repository / RECOMMENDER_ONNX / "1" / "release.json").read_text())
    assert {"version", "created", "data", "metrics", "parity", "files", "limits"} <= set(raw)
