"""The generated config.pbtxt says what the contract says, in Triton's own schema."""

from __future__ import annotations

from itertools import product

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from export.triton_config import ServingConfig, backend_of, check_config, config_text
from recommender.contract import KINDS, Limits, inputs, kind_of, model_names, outputs
from recommender.errors import ReleaseError

LIMITS = Limits(user_features=3, category_words=2, length_buckets=(16, 64, 200))
BACKENDS = ("onnxruntime", "pytorch")


BESIDE = KINDS[1:]


def parsed(backend, serving=None, model="recommender"):
    text = config_text(model, backend, LIMITS, serving)
    return text_format.Parse(text, model_config_pb2.ModelConfig())


@pytest.mark.parametrize(
    ("backend", "model"), [*((b, "recommender") for b in BACKENDS), *product(BACKENDS[:1], BESIDE)]
)
def test_tensors_are_the_contracts_in_its_order(backend, model):
    config, kind = parsed(backend, model=model), kind_of(model)
    for written, wanted in (
        (config.input, inputs(LIMITS, kind)),
        (config.output, outputs(LIMITS, kind)),
    ):
        assert [
            (t.name, model_config_pb2.DataType.Name(t.data_type), tuple(t.dims)) for t in written
        ] == [(t.name, f"TYPE_{t.datatype}", t.dims) for t in wanted]
    assert config.max_batch_size == LIMITS.max_batch_size
    assert (config.name, config.backend) == (model, backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_model_takes_a_gpu_where_there_is_one_and_every_version(backend):
    config = parsed(backend)
    (group,) = config.instance_group
    assert (group.kind, group.count) == (model_config_pb2.ModelInstanceGroup.KIND_AUTO, 1)
    assert config.version_policy.WhichOneof("policy_choice") == "all"


GROUP = model_config_pb2.ModelInstanceGroup
ACCELERATOR = {
    "precision_mode": "FP16",
    "max_workspace_size_bytes": "1073741824",
    "trt_engine_cache_enable": "0",  # a release must not answer with another's weights
}
# setting -> where it goes in the config, and what it is there
FIELDS = {
    "delay": (
        {"queue_delay_us": 123}, lambda c: c.dynamic_batching.max_queue_delay_microseconds, 123),
    "no batching": ({"batching": False}, lambda c: c.HasField("dynamic_batching"), False),
    "preferred": (
        {"preferred_batch_sizes": (8, 16)}, lambda c: [*c.dynamic_batching.preferred_batch_size],
        [8, 16]),
    "no policy": ({}, lambda c: c.dynamic_batching.HasField("default_queue_policy"), False),
    "queue size": (
        {"max_queue_size": 9}, lambda c: c.dynamic_batching.default_queue_policy,
        model_config_pb2.ModelQueuePolicy(max_queue_size=9)),
    "queue timeout": (
        {"queue_timeout_us": 9}, lambda c: c.dynamic_batching.default_queue_policy,
        model_config_pb2.ModelQueuePolicy(default_timeout_microseconds=9)),
    "instances": (
        {"instances": 2}, lambda c: [*c.instance_group], [GROUP(kind=GROUP.KIND_AUTO, count=2)]),
    "cpu": (
        {"kind": "cpu"}, lambda c: [*c.instance_group], [GROUP(kind=GROUP.KIND_CPU, count=1)]),
    "gpu": (
        {"kind": "gpu"}, lambda c: [*c.instance_group], [GROUP(kind=GROUP.KIND_GPU, count=1)]),
    "gpus": (
        {"kind": "gpu", "gpus": (0, 2)}, lambda c: [*c.instance_group],
        [GROUP(kind=GROUP.KIND_GPU, count=1, gpus=[0, 2])]),
    "no warm-up": ({"warmup": False}, lambda c: len(c.model_warmup), 0),
}  # fmt: skip


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("setting", FIELDS)
def test_each_setting_reaches_its_field_and_no_other(backend, setting):
    changes, field, wanted = FIELDS[setting]
    config, untouched = parsed(backend, ServingConfig(**changes)), parsed(backend)
    assert field(config) == wanted
    if changes:
        these, those = ({f.name: value for f, value in c.ListFields()} for c in (config, untouched))
        assert len({n for n in these | those if these.get(n) != those.get(n)}) == 1


def test_threads_go_by_the_native_backends_names():
    serving = ServingConfig(intra_op_threads=3, inter_op_threads=4)
    onnx, torchscript = (parsed(backend, serving) for backend in BACKENDS)
    assert {k: v.string_value for k, v in onnx.parameters.items()} == {
        "intra_op_thread_count": "3",
        "inter_op_thread_count": "4",
    }
    assert {k: v.string_value for k, v in torchscript.parameters.items()} == {
        "INTRA_OP_THREAD_COUNT": "3",
        "INTER_OP_THREAD_COUNT": "4",
        "DISABLE_OPTIMIZED_EXECUTION": "true",
    }


def test_a_config_that_lets_torchscript_optimize_is_refused(tmp_path):
    """On a GPU it would answer wrongly (docs/triton.md), here or natively."""
    path, name = tmp_path / "config.pbtxt", "recommender_torchscript"
    text = config_text(name, "pytorch", LIMITS)
    path.write_text(text)
    assert check_config(path, name, LIMITS) == text
    path.write_text(text.replace('"true"', '"false"'))
    with pytest.raises(ReleaseError, match=r"DISABLE_OPTIMIZED_EXECUTION: 'false'.*configure"):
        check_config(path, name, LIMITS)


def test_tensorrt_is_an_accelerator_of_onnx_models_alone():
    onnx, torchscript = (parsed(b, ServingConfig(tensorrt="fp16")) for b in BACKENDS)
    (one,) = onnx.optimization.execution_accelerators.gpu_execution_accelerator
    assert (one.name, dict(one.parameters)) == ("tensorrt", ACCELERATOR)
    assert not onnx.optimization.execution_accelerators.cpu_execution_accelerator
    assert torchscript == parsed("pytorch")
    assert not parsed("onnxruntime").HasField("optimization")


@pytest.mark.parametrize("backend", BACKENDS)
def test_warm_up_covers_every_length_bucket_alone_and_in_a_full_batch(backend):
    samples = parsed(backend).model_warmup
    covered = {(s.batch_size, s.inputs["history"].dims[0]) for s in samples}
    assert covered == {(b, length) for b in (1, 64) for length in (16, 64, 200)}
    for sample in samples:
        assert set(sample.inputs) == {t.name for t in inputs(LIMITS)}
        assert all(-1 not in one.dims and one.zero_data for one in sample.inputs.values())
        lengths = {tuple(sample.inputs[f"history{end}"].dims) for end in ("", "_time", "_weight")}
        assert len(lengths) == 1
    assert {s.count for s in samples} == {1}


def test_a_model_without_a_history_is_warmed_up_alone_and_in_a_full_batch():
    samples = parsed("onnxruntime", model="similar_items").model_warmup
    assert [sample.batch_size for sample in samples] == [1, 64]
    assert list(samples[0].inputs["query_item"].dims) == [1]


def test_every_model_of_a_family_says_its_kind():
    assert [kind_of(model) for model in model_names("deep")] == ["recommender", *KINDS]
    assert [kind_of(model) for model in model_names("item-knn")] == list(KINDS)
    assert model_names("item-knn", {"ranker"}) == ("item_knn_onnx", "item_knn_ranker")
    assert [backend_of(model) for model in model_names("deep")].count("pytorch") == 1


def test_the_same_arguments_give_the_same_text_which_says_it_is_generated():
    one, other = (config_text("m", "onnxruntime", LIMITS) for _ in range(2))
    assert one == other
    assert one.startswith("# Generated by export/triton_config.py")
