"""Whatever is wrong with a release, it is refused in one line that names the fault and the remedy,
and the good release is served as before."""

from __future__ import annotations

import dataclasses
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path

import broken_releases as broken
import numpy as np
import polars as pl
import pytest
import toy
from broken_releases import (
    CATALOGUE,
    INDEX,
    MODELS,
    ONNX,
    RELEASE,
    TORCH,
    USERS,
    Break,
    config,
    cut,
    limit,
    linked,
    named,
    onnx_model,
    said,
    sealed,
    torchscript,
    unsaid,
    written,
)
from triton_process import Server, assert_equal, infer, start

from recommender.errors import ReleaseError
from recommender.external_data import external_tensors
from recommender.release import read_release
from serving import tritonserver

Case = tuple[Break, str]  # what breaks it, and words of the refusal, in their order
ONNX_MODEL, TORCH_MODEL = MODELS
THREADS = 'parameters {\n  key: "intra_op_thread_count"\n  value {\n    string_value: "1"'
ACCELERATOR = (
    'optimization { execution_accelerators { cpu_execution_accelerator { name: "abacus" } } }\n'
)
ANOTHER_OUTPUT = 'output { name: "x" data_type: TYPE_BOOL dims: 1 }\n'
ENVIRONMENT = 'parameters { key: "EXECUTION_ENV_PATH" value { string_value: "/tmp/env.tar.gz" } }\n'
LIBRARY = 'model_operations { op_library_filename: "/tmp/evil.so" }\n'
INTS = pl.List(pl.Int64)

# --- refused by reading, before any server hears of it

READ: dict[str, Case] = {
    "no index": (broken.removed(INDEX), "releases.json is missing"),
    "an index that is no JSON": (written(INDEX, b"{'a': 1}"), "releases.json is not JSON"),
    "an index cut short": (cut(INDEX, 20), "releases.json is not JSON"),
    "an index of bytes": (written(INDEX, b"\xff\xfe\x00"), "releases.json is not JSON"),
    "an index that is a list": (written(INDEX, b"[1]"), "releases.json is [1]"),
    "an index of another schema": (said(INDEX, schema=99), "releases.json has schema 99"),
    "an index without releases": (unsaid(INDEX, "releases"), "releases.json has no releases"),
    "an index with a word as release": (
        said(INDEX, releases={"two": RELEASE}), "releases.json names release 'two'"),
    "an index with a release at a number": (
        said(INDEX, releases={"2": 7}), "releases.json names release '2' at 7"),
    "an index that serves a word": (said(INDEX, serving="2"), "releases.json has serving '2'"),
    "an index whose variants are a number": (
        said(INDEX, variants=2), "releases.json has variants 2 instead of a list"),
    "a variant of an unknown version": (
        said(INDEX, variants=[{"name": "b", "release": 7, "role": "ab", "share": 10}]),
        "releases.json: variant 'b' has release 7 none of the releases"),
    "a variant of nobody": (
        said(INDEX, variants=[{"name": "b", "release": 1, "role": "ab", "share": 0}]),
        "releases.json: variant 'b' has share 0 not above 0"),
    "an unknown version serves": (said(INDEX, serving=7), "release 7 is not in releases.json"),
    "the index names a release that is not there": (
        said(INDEX, releases={"2": f"{ONNX_MODEL}/3/release.json"}), "3/release.json is missing"),
    "the index names a release of another number": (
        said(INDEX, releases={"2": f"{ONNX_MODEL}/1/release.json"}),
        "1/release.json is of release 1 releases.json names it as release 2"),
    "the index leads up and out": (
        said(INDEX, releases={"2": "../outside/release.json"}),
        "releases.json names '../outside/release.json' no path inside"),
    "the index leads to the root": (
        said(INDEX, releases={"2": "/etc/passwd"}), "releases.json names '/etc/passwd' no path"),
    "no release.json": (broken.removed(RELEASE), "2/release.json is missing"),
    "release.json is no JSON": (written(RELEASE, b"version: 2"), "2/release.json is not JSON"),
    "release.json is empty": (written(RELEASE, b""), "2/release.json is not JSON"),
    "release.json nests too deep": (written(RELEASE, b"[" * 10**5), "2/release.json is not JSON"),
    "release.json of another schema": (said(RELEASE, schema="2"), "2/release.json has schema '2'"),
    "release.json of another version": (
        said(RELEASE, version=1), "2/release.json is of release 1 names it as release 2"),
    "release.json with a text as version": (said(RELEASE, version="2"), "has version '2'"),
    "release.json with true as clock": (said(RELEASE, clock=True), "has clock True a whole number"),
    "release.json without files": (unsaid(RELEASE, "files"), "2/release.json has no files"),
    "release.json without models": (said(RELEASE, models=[]), "2/release.json has models []"),
    "a model is a path": (said(RELEASE, models=["../elsewhere"]), "has models ['../elsewhere']"),
    "a model is the folder above": (said(RELEASE, models=[ONNX_MODEL, ".."]), "has models '..'"),
    "release.json is another, as good as this": (
        said(RELEASE, mean_rating=2.5), "2/release.json is corrupted: sha256"),
    "an index without checksums": (unsaid(INDEX, "checksums"), "releases.json has no checksums"),
    "an index without the checksum of release.json": (
        said(INDEX, checksums={}), "2/release.json is corrupted exported with None"),
    "limits are missing": (unsaid(RELEASE, "limits"), "2/release.json has no limits"),
    "a limit nobody knows": (limit("colour", 3), "2/release.json has limits 'colour'"),
    "a limit is a text": (limit("exclude", "8"), "2/release.json has the limit exclude '8'"),
    "a limit is negative": (limit("answers", -1), "2/release.json has the limit answers -1"),
    "no buckets": (limit("length_buckets", []), "the limit length_buckets ()"),
    "a bucket is a text": (limit("length_buckets", [4, "x"]), "the limit length_buckets (4, 'x')"),
    "buckets fall": (limit("length_buckets", [16, 4]), "the limit length_buckets (16, 4)"),
    "another number of user columns": (
        limit("user_features", 3), "2/release.json has the limit user_features 3"),
    "weights are missing": (broken.removed(TORCH), f"release 2 lacks {TORCH}"),
    "weights are cut short": (cut(ONNX, 1000), f"{ONNX} is corrupted: sha256"),
    "weights are empty": (written(TORCH, b""), f"{TORCH} is corrupted: sha256 e3b0c4"),
    "one bit of the weights": (broken.flipped(TORCH), f"{TORCH} is corrupted"),
    "weights of another release": (
        broken.copied(ONNX.replace("/2/", "/1/"), ONNX), f"{ONNX} is corrupted"),
    "weights and catalogue exchanged": (
        broken.exchanged(ONNX, CATALOGUE), "parquet is corrupted: sha256"),
    "the checksum is of something else": (
        named(ONNX, "f" * 64), f"{ONNX} is corrupted exported with ffff"),
    "the checksum is no text": (named(ONNX, 7), f"{ONNX} is corrupted exported with 7"),
    "a file too many": (
        written(f"{TORCH_MODEL}/2/model.onnx", b"x"), "2/model.onnx is none of the files"),
    "weights are a link": (linked(ONNX), f"{ONNX} is reached by a link, to outside/it"),
    "a version folder is a link": (
        linked(f"{TORCH_MODEL}/2"), f"{TORCH} is reached by a link, to outside/it/model.pt"),
    "a model folder is a link": (linked(ONNX_MODEL), "is reached by a link, to outside/it/2"),
    "a file up and out is named": (
        named("../outside/key.pem"), "2/release.json names '../outside/key.pem' no path inside"),
    "a file of the machine is named": (named("/etc/passwd"), "names '/etc/passwd' no path inside"),
    "a file with a zero byte is named": (named("a\0b"), "names 'a\\x00b' no path inside"),
    "a file of another release is named": (
        named(ONNX.replace("/2/", "/1/")), "1/model.onnx' in none of the folders"),
    "sealed: weights are empty": (sealed(written(ONNX, b"")), f"{ONNX} is no ONNX model: empty"),
    "sealed: weights are cut short": (
        sealed(cut(ONNX, 1000)), f"{ONNX} is no ONNX model: it is cut short"),
    "sealed: weights are a text": (
        sealed(written(ONNX, b"import os")), f"{ONNX} is no ONNX model"),
    "sealed: weights and catalogue exchanged": (
        sealed(broken.exchanged(ONNX, CATALOGUE)), f"{ONNX} is no ONNX model"),
    "external data beside the model": (
        onnx_model(broken.external("model.onnx.data")), f"{ONNX} keeps tensor items in another"),
    "external data up and out": (
        onnx_model(broken.external("../../../secret")), f"{ONNX} keeps tensor in another file"),
    "external data in a branch": (
        onnx_model(broken.external_in_a_branch), f"{ONNX} keeps tensor 'hidden' in another file"),
    "sealed: the catalogue is cut short": (
        sealed(cut(CATALOGUE, 500)), f"{CATALOGUE} is no table"),
    "sealed: the catalogue is a text": (
        sealed(written(CATALOGUE, b"item_id\n1\n")), f"{CATALOGUE} is no table"),
    "sealed: no catalogue": (sealed(broken.removed(CATALOGUE)), f"{CATALOGUE} is missing"),
    "the catalogue has an item less": (
        broken.table(CATALOGUE, lambda items: items[1:]), f"{CATALOGUE} has 118 items have 119"),
    "the catalogue has other columns": (
        broken.table(CATALOGUE, lambda items: items.drop("title")), f"{CATALOGUE} column title"),
    "item ids are numbers": (
        broken.table(CATALOGUE, lambda items: items.with_columns(item_id=pl.lit(1))),
        f"{CATALOGUE} has column item_id as Int32 instead of String"),
    "sealed: the users are cut short": (sealed(cut(USERS, 500)), f"{USERS} is no table"),
    "sealed: pages of the users are zeros": (
        sealed(broken.overwritten(USERS, slice(4, 400))), f"{USERS} is no table"),
    "the users have other columns": (
        broken.table(USERS, lambda users: users.drop("times")), f"{USERS} column times as None"),
    "the users have other features": (
        broken.table(USERS, lambda users: users.with_columns(features=pl.lit([0], INTS))),
        f"{USERS} has users of [1] features, release 2 has 2"),
    "a history has an item that nobody knows": (
        broken.table(USERS, lambda users: users.with_columns(items=pl.lit([120], INTS))),
        f"{USERS} has a history with item 120 of 119"),
}  # fmt: skip

# --- refused at the load: a config that is not the release's, or a model that is not what it says

LOAD: dict[str, Case] = {
    "no config": (
        broken.removed(f"{ONNX_MODEL}/config.pbtxt"), "recommender_onnx/config.pbtxt is missing"),
    "a config that is no protobuf text": (
        written(f"{ONNX_MODEL}/config.pbtxt", b"backend = onnxruntime"), "is no model config: 1:9"),
    "a config of bytes": (
        written(f"{ONNX_MODEL}/config.pbtxt", b"\xff\x00"), "config.pbtxt is no model config"),
    "a config of another model": (
        broken.copied(f"{TORCH_MODEL}/config.pbtxt", f"{ONNX_MODEL}/config.pbtxt"),
        f"{ONNX_MODEL}/config.pbtxt says name: '{TORCH_MODEL}', the release has '{ONNX_MODEL}'"),
    "an unknown backend": (
        config(ONNX_MODEL, '"onnxruntime"', '"oracle"'),
        "config.pbtxt says backend: 'oracle', the release has 'onnxruntime'"),
    "another max_batch_size": (
        config(ONNX_MODEL, "max_batch_size: 16", "max_batch_size: 8"),
        "config.pbtxt says max_batch_size: 8, the release has 16"),
    "limits that the config has not": (
        sealed(limit("exclude", 9)),
        "says input exclude: TYPE_INT64[8], the release has TYPE_INT64[9]"),
    "an input has another name in the config": (
        config(ONNX_MODEL, 'name: "exclude"', 'name: "seen"'),
        "says input exclude: none, the release has TYPE_INT64[8]"),
    "an output has another type in the config": (
        config(ONNX_MODEL, "TYPE_FP32\n  dims: 10", "TYPE_FP16\n  dims: 10"),
        "says output score: TYPE_FP16[10], the release has TYPE_FP32[10]"),
    "an output too many in the config": (
        config(ONNX_MODEL, "output {", f"{ANOTHER_OUTPUT}output {{"),
        "says output x: TYPE_BOOL[1], the release has none"),
    "an environment of its own": (
        config(ONNX_MODEL, "output {", f"{ENVIRONMENT}output {{"),
        "says parameter EXECUTION_ENV_PATH: '/tmp/env.tar.gz', the release has none"),
    "a library of its own": (
        config(ONNX_MODEL, "output {", f"{LIBRARY}output {{"), "says model_operations: evil.so"),
    "another file": (
        config(ONNX_MODEL, "output {", 'default_model_filename: "../1/model.onnx"\noutput {'),
        "says default_model_filename: '../1/model.onnx', the release has none"),
    "negative threads": (
        config(ONNX_MODEL, THREADS, THREADS.replace('"1"', '"-2"')),
        "parameter intra_op_thread_count is '-2'"),
    "a million threads": (
        config(ONNX_MODEL, THREADS, THREADS.replace('"1"', '"1000000"')),
        "parameter intra_op_thread_count is '1000000'"),
    "torch: threads in a word": (
        config(TORCH_MODEL, 'string_value: "1"', 'string_value: "all"'), "_THREAD_COUNT is 'all'"),
    "an unknown accelerator": (
        config(ONNX_MODEL, "output {", f"{ACCELERATOR}output {{"), "execution_accelerators abacus"),
    "a GPU on a machine without": (
        config(ONNX_MODEL, "count: 1", "count: 1\n  kind: KIND_GPU"), "GPU"),
    "sealed: no weights": (sealed(broken.removed(ONNX)), f"{ONNX} is missing"),
    "onnx: an input has another name": (
        onnx_model(broken.renamed("exclude", "seen")), "inputs 'exclude' model.onnx has 'seen'"),
    "onnx: an output has another name": (
        onnx_model(broken.renamed("score", "logit")), "outputs 'score' model.onnx has 'logit'"),
    "onnx: an input is missing": (
        onnx_model(broken.without_input), "inputs 'category_filter' model.onnx has 'exclude'"),
    "onnx: an input too many": (onnx_model(broken.another_input), "model.onnx has 'mood'"),
    "onnx: an output too many": (onnx_model(broken.another_output), "model.onnx has 'logit'"),
    "onnx: other dims": (
        onnx_model(broken.dim("exclude", 1, 9)), "exclude of model.onnx 9] exclude int64[8]"),
    "onnx: another type": (
        onnx_model(broken.double_score), "score of model.onnx is tensor(double) score float32[10]"),
    "onnx: a fixed batch": (
        onnx_model(broken.dim("request_time", 0, 3)), "request_time of model.onnx fixed batch 3"),
    "onnx: an operator that nobody knows": (onnx_model(broken.custom_op), f"{ONNX} Telepathy"),
    "onnx: an opset that nobody knows": (
        onnx_model(lambda model: setattr(model.opset_import[0], "version", 99)),
        f"{ONNX} cannot be read: opset Opset 99"),
    "torch: a pickle": (sealed(broken.plain_pickle), f"{TORCH} is no TorchScript"),
    "torch: what torch.save writes": (sealed(broken.torch_saved), f"{TORCH} is no TorchScript"),
    "torch: cut short": (sealed(cut(TORCH, 1000)), f"{TORCH} is no TorchScript"),
    "torch: an ONNX model": (sealed(broken.copied(ONNX, TORCH)), f"{TORCH} is no TorchScript"),
    "torch: an input has another name": (
        torchscript(broken.Renamed()), "inputs 'exclude' forward() of model.pt takes 'seen'"),
    "torch: an input is missing": (
        torchscript(broken.Unfiltered(), inputs=6), "'category_filter' forward() of model.pt"),
    "torch: an output too many": (
        torchscript(broken.Changed(lambda item, score: (item, score, score))),
        "model.pt forward() gives 3 outputs, not 2"),
    "torch: an output is missing": (
        torchscript(broken.Changed(lambda item, score: (item,))),
        "model.pt forward() gives 1 outputs, not 2"),
    "torch: other dims": (
        torchscript(broken.Changed(lambda item, score: (item[:, :9], score))),
        "item of model.pt is int64[3, 9] item int64[10]"),
    "torch: another type": (
        torchscript(broken.Changed(lambda item, score: (item, score.double()))),
        "score of model.pt is float64[3, 10] score float32[10]"),
    "torch: a fixed batch": (
        torchscript(broken.Changed(lambda item, score: (item[:1], score))),
        "item of model.pt is int64[1, 10] a batch of [3]"),
    "torch: a batch of 4 at most": (
        torchscript(broken.Changed(lambda item, score: (item[:4], score[:4]))),
        "item of model.pt is int64[4, 10] a batch of [16]"),
    "torch: histories of 15 at most": (
        torchscript(broken.Short()),
        f"{TORCH} fails on an input as config.pbtxt declares it: tensor 16"),
}  # fmt: skip


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    repository = tmp_path_factory.mktemp("good") / "repository"
    broken.write_good(repository)
    return repository


@pytest.fixture
def repository(good: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "repository"))


def assert_says(refusal: ReleaseError, words: str, repository: Path) -> None:
    """One line that holds `words`, in their order, and a remedy."""
    said = refusal.what.replace(f"{repository.parent.resolve()}/", "").replace("repository/", "")
    at = 0
    for word in words.split():
        assert word in said[at:], f"{word!r} of {words!r} is not in {said!r}"
        at = said.index(word, at) + len(word)
    assert "\n" not in str(refusal)
    assert len(str(refusal)) < 600
    assert refusal.remedy.endswith(".")


@pytest.mark.parametrize("case", READ)
def test_what_is_broken_is_refused_before_any_server_starts(repository: Path, case: str) -> None:
    change, words = READ[case]
    assert read_release(repository).version == 2
    change(repository)
    with pytest.raises(ReleaseError) as refusal:
        read_release(repository)
    assert_says(refusal.value, words, repository)


def test_any_flipped_bit_and_any_cut_is_refused(repository: Path) -> None:
    random = np.random.default_rng(5)
    for name in (ONNX, TORCH, CATALOGUE, USERS):
        content = (repository / name).read_bytes()
        for at in random.integers(0, len(content), 25):
            flipped = bytearray(content)
            flipped[at] ^= 1 << int(random.integers(8))
            for broken_content in (bytes(flipped), content[:at]):
                (repository / name).write_bytes(broken_content)
                with pytest.raises(ReleaseError, match=f"{Path(name).name} is corrupted"):
                    read_release(repository)
        (repository / name).write_bytes(content)
    assert read_release(repository).version == 2


def test_whatever_bytes_an_onnx_file_has_the_search_for_external_data_ends(good: Path) -> None:
    random, path = np.random.default_rng(6), good.parent / "changed.onnx"
    content = np.frombuffer((good / ONNX).read_bytes(), np.uint8)
    refused = 0
    for _ in range(300):
        changed = content.copy()
        changed[random.integers(0, len(changed), 20)] = random.integers(0, 256, 20)
        path.write_bytes(changed.tobytes())
        try:
            external_tensors(path)
        except ValueError:
            refused += 1
    assert refused > 30


def test_whoever_unpickles_the_trap_is_caught(repository: Path) -> None:
    broken.plain_pickle(repository)
    pickle.loads((repository / TORCH).read_bytes())  # noqa: S301 - what no server may do
    assert broken.marker(repository).exists()


@pytest.fixture(scope="module")
def server(good: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """It serves release 1, while each case tries to have it load release 2."""
    folder = tmp_path_factory.mktemp("served")
    shutil.copytree(good, folder / "repository")
    running = start(folder / "repository", folder / "triton.log")
    try:
        load(running, 1)
        yield running
    finally:
        tritonserver.stop(running.process)


def load(server: Server, version: int, *models: str) -> None:
    """Release `version`, or these models of it."""
    release = read_release(server.repository, version)
    release = dataclasses.replace(release, models=models or release.models)
    tritonserver.load_release(release, server.ports, process=server.process, log=server.log)


@pytest.fixture
def served(server: Server, good: Path) -> Iterator[Path]:
    """The server's repository, good again after the test."""
    yield server.repository
    shutil.rmtree(server.repository)
    shutil.copytree(good, server.repository)


@pytest.mark.parametrize("case", LOAD)
def test_what_does_not_fit_is_refused_at_the_load(server: Server, served: Path, case: str) -> None:
    change, words = LOAD[case]
    change(served)
    model = TORCH_MODEL if case.startswith("torch") else ONNX_MODEL
    with pytest.raises(ReleaseError) as refusal:
        load(server, 2, model)
    assert_says(refusal.value, words, served)
    assert not broken.marker(served).exists()
    assert_good(server, 1)


def test_the_good_release_loads_after_all_that(server: Server, served: Path) -> None:
    load(server, 2)
    assert_good(server, 2)


def assert_good(server: Server, version: int) -> None:
    arrays = toy.batch(2, 4)
    wanted = toy.eager(arrays, toy.Toy(seed=6 + version))
    for model in MODELS:
        assert_equal(infer(server.address("grpc"), model, arrays, version), wanted)
