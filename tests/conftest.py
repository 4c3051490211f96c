"""What many tests need once: a small data set with a known answer, a run, a release, both servers.

Every server runs on free ports of 127.0.0.1 and is gone when the session ends. `make test` runs
two workers (pytest-xdist), which take a file at a time: each has a session and servers of its own,
what is trained and exported for many tests they share.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import every_family
import pytest
import torch
from bento_process import Service, answers, bentoml_serve, wait_until
from cold_data import cold_dataset, cold_folder  # noqa: F401 - fixtures
from every_family import Every
from served import ITEMS, Stack, serving
from toy_release import returning
from triton_process import Returning, toy_repository, toy_server, toy_weights  # noqa: F401 - fixtures
from two_catalogues import one, other  # noqa: F401 - fixtures

from export.releases import publish
from recommender import config, runs
from recommender.data.dataset import Dataset, load
from recommender.data.synthetic import write_synthetic
from recommender.runs import Run
from recommender.train import train

# Small models: threads would only wait for each other, and badly so on a busy machine.
# For the commands that tests start, too.
os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.set_num_threads(1)

# Minutes each: begun first, so that the workers end together.
LONGEST = (
    *("test_variants_live", "test_readme", "test_tune_jobs", "test_stack", "test_adapter"),
    *("test_through", "test_export", "test_killed", "test_backends", "test_triton_loading"),
    *("test_promotion", "test_tune", "test_access_stack"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if "PYTEST_XDIST_WORKER" in os.environ:
        names = {f"{name}.py": place for place, name in enumerate(LONGEST)}
        items.sort(key=lambda item: names.get(item.path.name, len(names)))


def made_once(name: str, factory: pytest.TempPathFactory, make: Callable[[Path], None]) -> Path:
    """A folder that whoever asks first makes and the others wait for; never to be changed."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            half = folder.with_suffix(".half")
            make(half)
            half.rename(folder)
    return folder


QUICK = (
    *("training.epochs=8", "training.batch=16", "encoder.width=32", "training.patience=3"),
    *("mixer.cuts=2", "mixer.cut_epochs=3"),
)


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "synthetic"
    write_synthetic(folder, users=300, items=ITEMS, events=6000, seed=3)
    return folder


@pytest.fixture(scope="session")
def dataset(data_folder: Path) -> Dataset:
    return load(data_folder)[0]


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory, dataset: Dataset) -> Path:
    """A deep run, trained for seconds: enough to have learned that items follow each other."""
    settings = config.read("quick", settings=QUICK)
    return made_once("deep-run", tmp_path_factory, lambda out: train(dataset, out, config=settings))


@pytest.fixture(scope="session")
def run(run_folder: Path) -> Run:
    return runs.read(run_folder)


@pytest.fixture(scope="session")
def exported(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the release of that run."""

    def export(out: Path) -> None:
        assert publish(runs.read(run_folder), out) == 1

    return made_once("deep-repository", tmp_path_factory, export)


@pytest.fixture(scope="session")
def repository(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of this session's own."""
    folder = tmp_path_factory.mktemp("repository") / "model_repository"
    shutil.copytree(exported, folder)
    return folder


@pytest.fixture(scope="session")
def every(run_folder: Path, exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Every:
    """A run and a release of every family, the deep ones above among them."""
    made = made_once("every-family", tmp_path_factory, lambda out: every_family.make(out, exported))
    return every_family.read(made, deep=runs.read(run_folder))


@pytest.fixture(scope="session")
def stack(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with serving(repository, tmp_path_factory.mktemp("serve")) as running:
        yield running


@pytest.fixture(scope="module")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Returning]:
    """Of the toy release, each file's own: it can go and come."""
    with returning(tmp_path_factory.mktemp("triton")) as server:
        yield server


@pytest.fixture(scope="session")
def aside(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Another service of the same release and Triton, with a store of its own, for whoever leaves
    nothing as it was."""
    tmp = tmp_path_factory.mktemp("aside")
    variables = {
        "RECSERVE_REPOSITORY": str(stack.repository),
        "RECSERVE_TRITON": stack.grpc,
        "RECSERVE_STORE": f"sqlite:///{tmp / 'events.db'}",
    }
    with bentoml_serve(tmp, variables) as running:
        wait_until(lambda: answers(running.http, "/readyz"))
        yield running
