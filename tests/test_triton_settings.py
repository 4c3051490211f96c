"""`triton.toml`: read strictly, kept in the repository, and written into every config.pbtxt."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import toy
from bento_process import write_release
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from export.configs import CONFIG, SETTINGS, configure
from export.index import locked
from export.releases import publish
from export.serving_config import RANGES, WORDS, ServingConfig, parse
from export.triton_config import check_config
from recommender.contract import RECOMMENDER_ONNX, RECOMMENDER_TORCHSCRIPT
from recommender.errors import BadInput, ReleaseError
from recommender.release import read_release
from recommender.runs import Run

ROOT = Path(__file__).parent.parent
MODELS = (RECOMMENDER_ONNX, RECOMMENDER_TORCHSCRIPT)
GROUP = model_config_pb2.ModelInstanceGroup


def test_a_model_s_own_table_goes_over_what_holds_for_all() -> None:
    read = parse(b"instances = 2\nwarmup = false\n[ranker]\ninstances = 3\n", "t.toml")
    assert read.of("ranker") == ServingConfig(instances=3, warmup=False)
    assert read.of("similar_items") == ServingConfig(instances=2, warmup=False)


def test_every_setting_can_be_set_and_nothing_said_is_the_defaults() -> None:
    text = b"""
    batching = false
    queue_delay_us = 700
    preferred_batch_sizes = [8, 16]
    max_queue_size = 100
    queue_timeout_us = 1000
    instances = 2
    kind = "gpu"
    gpus = [0, 1]
    intra_op_threads = 0
    inter_op_threads = 2
    warmup = false
    tensorrt = "fp16"
    """
    wanted = ServingConfig(
        batching=False,
        queue_delay_us=700,
        preferred_batch_sizes=(8, 16),
        max_queue_size=100,
        queue_timeout_us=1000,
        instances=2,
        kind="gpu",
        gpus=(0, 1),
        intra_op_threads=0,
        inter_op_threads=2,
        warmup=False,
        tensorrt="fp16",
    )
    assert parse(text, "t.toml").of("ranker") == wanted
    changed = {key for key in vars(wanted) if getattr(wanted, key) != getattr(ServingConfig(), key)}
    assert changed == set(vars(wanted)), "one of them is tried with its default"
    assert parse(b"", "t.toml").of("ranker") == ServingConfig()


# text -> words of the refusal, in their order: what, the value, the remedy
REFUSED = {
    "queue_delay = 5": ("'queue_delay'", "queue_delay_us"),
    "[ranker]\nthreads = 5": ("[ranker]", "'threads'", "intra_op_threads"),
    "instances = 0": ("instances is 0", "from 1 to 64"),
    "instances = 2.0": ("instances is 2.0", "a whole number"),
    "instances = true": ("instances is True", "a whole number"),
    'intra_op_threads = "2"': ("intra_op_threads is '2'", "a whole number"),
    "intra_op_threads = 1000": ("intra_op_threads is 1000", "to 999"),
    "queue_delay_us = -1": ("queue_delay_us is -1", "from 0"),
    "preferred_batch_sizes = 8": ("preferred_batch_sizes is 8", "a list"),
    "preferred_batch_sizes = [0]": ("preferred_batch_sizes is [0]", "from 1"),
    "preferred_batch_sizes = [8, true]": ("[8, True]", "a list of whole numbers"),
    'kind = "gpu"\ngpus = [1, 1]': ("gpus is [1, 1]", "different"),
    "gpus = [0]": ("gpus is [0] and kind is 'auto'", 'kind = "gpu"'),
    'kind = "tpu"': ("kind is 'tpu'", '"auto" or "cpu" or "gpu"'),
    "tensorrt = true": ("tensorrt is True", '"off" or "fp32" or "fp16"'),
    "batching = 1": ("batching is 1", "true or false"),
    "warmup = [": ("not TOML", "Mend the file"),
}


@pytest.mark.parametrize("text", REFUSED)
def test_a_setting_that_cannot_be_is_refused_with_key_value_and_remedy(text: str) -> None:
    with pytest.raises(BadInput) as refusal:
        parse(text.encode(), "t.toml")
    said = str(refusal.value)
    assert said.startswith("t.toml") and "\n" not in said and said.endswith(".")
    for word in REFUSED[text]:
        assert word in said
        said = said.partition(word)[2]


def test_a_file_of_other_bytes_is_refused() -> None:
    with pytest.raises(BadInput, match="not TOML"):
        parse(b"\xff\xfe", "t.toml")


def test_what_is_allowed_is_said_of_every_setting() -> None:
    told = {*WORDS, *RANGES}
    assert {k for k, v in vars(ServingConfig()).items() if not isinstance(v, bool)} == told


# --- in a repository


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release of toy models."""
    folder = tmp_path_factory.mktemp("made")
    toy.write_onnx(folder / "model.onnx")
    toy.write_torchscript(folder / "model.pt")
    for model, backend in zip(MODELS, toy.FILES, strict=True):
        weights = folder / toy.FILES[backend]
        toy.add_model(folder / "repository", model, backend, weights, serving=ServingConfig())
    write_release(folder / "repository", toy.LIMITS, items=toy.ITEMS - 1, models=MODELS)
    return folder / "repository"


@pytest.fixture
def repository(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "repository"))


def settings(folder: Path, text: str) -> Path:
    path = folder / "some.toml"
    path.write_text(text)
    return path


def config_of(repository: Path, model: str = RECOMMENDER_ONNX) -> model_config_pb2.ModelConfig:
    text = (repository / model / CONFIG).read_text()
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def test_settings_are_kept_and_written_into_the_configs(repository: Path, tmp_path: Path) -> None:
    file = settings(tmp_path, "queue_delay_us = 7\n[recommender_torchscript]\ninstances = 3\n")
    before = read_release(repository)
    changed = configure(repository, file)
    assert {path.name for path in changed} == {CONFIG, SETTINGS}
    assert (repository / SETTINGS).read_text() == file.read_text()
    for model, instances in zip(MODELS, (1, 3), strict=True):
        config = config_of(repository, model)
        assert config.dynamic_batching.max_queue_delay_microseconds == 7
        assert config.instance_group[0].count == instances
        check_config(repository / model / CONFIG, model, toy.LIMITS)
    assert configure(repository) == []
    assert read_release(repository).files == before.files
    assert sorted(p.name for p in repository.iterdir() if p.is_dir()) == sorted(MODELS)


def test_an_edited_and_an_empty_file_are_taken_as_they_are(
    repository: Path, tmp_path: Path
) -> None:
    untouched = config_of(repository)
    configure(repository, settings(tmp_path, "instances = 3\n"))
    (repository / SETTINGS).write_text("instances = 4\n")
    configure(repository)
    assert config_of(repository).instance_group[0].count == 4
    configure(repository, settings(tmp_path, ""))
    assert config_of(repository) == untouched
    assert (repository / SETTINGS).read_text() == ""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[recomender_onnx]\ninstances = 2", "no model 'recomender_onnx'. Models: recomm"),
        ("preferred_batch_sizes = [17]", "is [17], and the largest batch of recomm"),
        ('[recommender_torchscript]\ntensorrt = "fp16"', "tensorrt is 'fp16', and the model is T"),
        ("instances = 0", "instances is 0"),
    ],
)  # fmt: skip
def test_what_does_not_fit_the_repository_is_refused_and_nothing_changes(
    repository: Path, tmp_path: Path, text: str, words: str
) -> None:
    configure(repository, settings(tmp_path, "instances = 2\n"))
    before = {path: path.read_bytes() for path in repository.rglob("*") if path.is_file()}
    with pytest.raises(BadInput) as refusal:
        configure(repository, settings(tmp_path, text))
    assert words in str(refusal.value)
    assert {p: p.read_bytes() for p in repository.rglob("*") if p.is_file()} == before


def test_a_repository_that_is_being_written_is_left_alone(repository: Path) -> None:
    with locked(repository), pytest.raises(ReleaseError, match="being written"):
        configure(repository)


def test_the_settings_hold_for_the_next_export_too(run: Run, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    publish(run, repository, settings(tmp_path, "instances = 2\n[ranker]\nbatching = false\n"))
    publish(run, repository)
    for model in read_release(repository, 2).models:
        config = config_of(repository, model)
        assert config.instance_group[0].count == 2
        assert config.HasField("dynamic_batching") == (model != "ranker")
    with pytest.raises(BadInput, match="instances is 0"):
        publish(run, repository, settings(tmp_path, "instances = 0\n"))
    assert sorted(p.name for p in (repository / "ranker").iterdir()) == ["1", "2", CONFIG]


def test_the_command_says_what_it_wrote_and_refuses_in_one_line(
    repository: Path, tmp_path: Path
) -> None:
    def run(text: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "serving.cli", "releases", "configure", "--repository",
             str(repository), "--triton", str(settings(tmp_path, text))],
            cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    done = run("instances = 2\n")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("wrote ") == 3
    assert "recserve serve" in done.stdout
    assert run("instances = 2\n").stdout == "nothing to change\n"
    refused = run("instances = many\n")
    assert refused.returncode == 2
    assert refused.stderr.startswith("recserve: ") and refused.stderr.count("\n") == 1


@pytest.mark.parametrize("model", MODELS)
def test_check_config_takes_every_setting(repository: Path, tmp_path: Path, model: str) -> None:
    for text in (
        "batching = false", "max_queue_size = 8\nqueue_timeout_us = 9", 'kind = "gpu"\ngpus = [1]',
        "instances = 4", "intra_op_threads = 3\ninter_op_threads = 3", "warmup = false",
        'tensorrt = "fp16"', "preferred_batch_sizes = [4, 8]",
    ):  # fmt: skip
        configure(repository, settings(tmp_path, text))
        check_config(repository / model / CONFIG, model, toy.LIMITS)
