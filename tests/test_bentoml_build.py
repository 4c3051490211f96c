"""`bentoml build` packs the service alone, pinned and without torch, and the result serves."""

from __future__ import annotations

import subprocess
import tarfile
from pathlib import Path

import pytest
from bento_process import BENTOML, ROOT, bentoml_serve, environment, write_release

from bento.lock import locked
from recommender.contract import Limits

TRAINING = ("torch", "onnx", "onnxruntime", "onnxscript", "pandas", "nvidia-pytriton", "scipy")
SERVING = ("bentoml", "msgspec", "numpy", "tritonclient", "polars")


@pytest.fixture(scope="module")
def bento(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a bento that was built, exported to an archive, and unpacked."""
    tmp = tmp_path_factory.mktemp("build")
    env, archive = environment(tmp / "home"), tmp / "recserve.tar"
    for command in (["build", "--version", "test"], ["export", "recserve:test", str(archive)]):
        done = subprocess.run(
            [BENTOML, *command], cwd=ROOT, env=env, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
    (written,) = tmp.glob("recserve*.tar*")
    with tarfile.open(written) as tar:
        tar.extractall(tmp / "bento", filter="data")
    return tmp / "bento"


def test_it_holds_only_what_the_service_needs(bento: Path) -> None:
    source = bento / "src"
    folders = {path.name for path in source.iterdir() if path.is_dir()}
    assert folders == {"bento", "client", "recommender"}
    assert (source / "bento" / "service.py").is_file()
    importing = [
        path
        for path in source.rglob("*.py")
        if any(f"import {name}" in path.read_text() for name in ("torch", "onnx", "pandas"))
    ]
    assert importing == []
    assert not list(source.rglob("*.pyc"))


def test_its_lock_pins_every_package_and_names_none_of_training(bento: Path) -> None:
    lines = (bento / "env" / "python" / "requirements.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all("==" in pin for pin in pins)
    names = {pin.partition("==")[0].lower().replace("_", "-") for pin in pins}
    assert names >= set(SERVING)
    assert names.isdisjoint(TRAINING)


def test_the_lock_is_up_to_date() -> None:
    assert (ROOT / "bento" / "requirements.txt").read_text() == locked(), (
        "run `python -m bento.lock > bento/requirements.txt`"
    )


def test_the_image_listens_beyond_itself_and_tells_nobody(bento: Path) -> None:
    dockerfile = (bento / "env" / "docker" / "Dockerfile").read_text()
    assert "BENTOML_HOST=0.0.0.0" in dockerfile
    assert "BENTOML_DO_NOT_TRACK=True" in dockerfile


def test_the_unpacked_bento_serves_the_repository_the_environment_names(
    bento: Path, tmp_path: Path
) -> None:
    limits = Limits(user_features=2, category_words=1)
    write_release(tmp_path / "repository", limits, items=30, models=("recommender_onnx",))
    variables = {
        "RECSERVE_REPOSITORY": "repository",  # relative to where it is started
        "RECSERVE_TRITON": "grpc://127.0.0.1:18199",
    }
    with bentoml_serve(tmp_path, variables, target=(str(bento),), cwd=tmp_path) as service:
        answer = service.post("/v1/popular", {"n": 2})
        assert isinstance(answer["items"], list)
        assert [item["item_id"] for item in answer["items"]] == ["i1", "i2"]
        assert "<title>recserve</title>" in service.http.get("/").text
        assert service.http.get("/web/app.js").status_code == 200
        assert service.recommend(user_id="reader", n=1)["fallback"] is True
