"""A training computes where `training.device` says, and leaves its results on the CPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from trainings import check_sound, fitted, small, write_little

from recommender import config
from recommender.data.dataset import Dataset
from recommender.errors import BadInput, MachineError
from recommender.runs import read
from recommender.train import train

HERE = torch.cuda.is_available()
needs_gpu = pytest.mark.skipif(not HERE, reason="no CUDA GPU here")


@pytest.fixture(scope="module")
def little(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_little(tmp_path_factory.mktemp("little") / "data")


def test_an_unknown_device_is_refused_by_name() -> None:
    with pytest.raises(BadInput, match=r"training\.device is 'tpu'.*auto, cpu, cuda"):
        config.read(settings=["training.device=tpu"])


@pytest.mark.skipif(HERE, reason="a CUDA GPU is here")
def test_a_gpu_is_refused_where_there_is_none_before_anything_is_written(
    little: Dataset, tmp_path: Path
) -> None:
    with pytest.raises(MachineError, match=r"sees no GPU here.*training\.device=auto"):
        train(little, tmp_path / "run", config=small("training.device=cuda"))
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(HERE, reason="a CUDA GPU is here")
def test_auto_is_the_cpu_where_there_is_no_gpu(little: Dataset) -> None:
    auto, cpu = (fitted(little, f"training.device={device}") for device in ("auto", "cpu"))
    assert auto.details["device"] == cpu.details["device"] == "cpu"
    first, second = auto.graph.state_dict(), cpu.graph.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


@needs_gpu
@pytest.mark.parametrize("family", ["deep", "ease"])
def test_what_a_gpu_has_trained_is_on_the_cpu(little: Dataset, family: str) -> None:
    run = fitted(little, "training.device=cuda", "mixer.ablate=1", family=family)
    assert run.details["device"].startswith("cuda (")
    assert {tensor.device.type for tensor in run.graph.state_dict().values()} == {"cpu"}
    check_sound(run)


@needs_gpu
def test_an_interrupted_training_goes_on_with_or_without_a_gpu(
    little: Dataset, tmp_path: Path
) -> None:
    def interrupt(what: str, done: int, total: int) -> None:
        if what == "cut 1, epoch 2" and done == total // 2:
            raise KeyboardInterrupt

    recipe = small()
    assert recipe.training.device == "auto"
    with pytest.raises(KeyboardInterrupt):
        train(little, tmp_path / "run", config=recipe, progress=interrupt)
    assert list((tmp_path / "run").glob("checkpoint-*.pt"))
    run = train(little, tmp_path / "run", config=recipe, resume=True)
    check_sound(run)
    check_sound(read(tmp_path / "run"))
