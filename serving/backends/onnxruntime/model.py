"""Triton backend "onnxruntime" without NVIDIA's native one: same config, same answers.

One instance is one process with one session over `<version>/model.onnx`. Imports
only numpy, Triton's utilities and ONNX Runtime.
"""

import os
import sys

# The stubs of Python 3.11 and 3.12 ignore PYTHONPATH: take its entries ourselves.
sys.path[:0] = [
    os.path.dirname(os.path.abspath(__file__)),  # noqa: PTH100, PTH120 - before any import
    *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)),
]

import batching  # noqa: E402
import onnxruntime as ort  # noqa: E402

ONNX_TYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(bool)": "bool",
    "tensor(uint8)": "uint8",
}

CPU, CUDA, TENSORRT = (f"{name}ExecutionProvider" for name in ("CPU", "CUDA", "Tensorrt"))

# The native backend's names of TensorRT's options -> ONNX Runtime's.
PRECISIONS = {
    "FP32": {},
    "FP16": {"trt_fp16_enable": "True"},
    "BF16": {"trt_bf16_enable": "True"},
}
TENSORRT_FLAGS = ("trt_engine_cache_enable", "trt_timing_cache_enable", "trt_cuda_graph_enable")


class TritonPythonModel:
    def initialize(self, args):
        config = batching.Config.read(args, "model.onnx")
        session = open_session(config)
        for role, ports, seen in (
            ("input", config.inputs, session.get_inputs()),
            ("output", config.outputs, session.get_outputs()),
        ):
            check(role, config, ports, {one.name: one for one in seen})
        names = [port.name for port in config.inputs]
        wanted = [port.name for port in config.outputs]

        def run(arrays):
            return session.run(wanted, dict(zip(names, arrays, strict=True)))

        batching.probe(config, run)
        self.batcher = batching.Batcher(config, run)

    def execute(self, requests):
        return self.batcher.execute(requests)


def open_session(config):
    options = ort.SessionOptions()
    options.intra_op_num_threads = config.threads("intra_op_thread_count")
    options.inter_op_num_threads = config.threads("inter_op_thread_count")
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    # A spinning pool steals the cores from Triton and Bento.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    wanted = providers(config)
    if config.gpu is not None:
        ort.preload_dlls()
    try:
        session = ort.InferenceSession(str(config.file), options, providers=wanted)
    except Exception as error:
        raise batching.refuse(
            f"{config.file} cannot be read: {batching.reason(error)}", "Export the run again."
        ) from error
    names = [one if isinstance(one, str) else one[0] for one in wanted]
    if lacking := [name for name in names if name not in session.get_providers()]:
        raise batching.refuse(
            f"ONNX Runtime did not reach GPU {config.gpu} by {lacking[0]}",
            'Install the libraries it names in the log, or set tensorrt = "off" or kind = "cpu".',
        )
    return session


def providers(config):
    """ONNX Runtime's, the preferred one first. An accelerator of the GPU is checked on the CPU too,
    where it has no effect: what loads here must load there."""
    tensorrt = tensorrt_options(config)
    if config.gpu is None:
        return [CPU]
    # TF32 is this provider's default, and rounds scores by more than golden requests allow.
    found = [(CUDA, {"device_id": config.gpu, "use_tf32": 0}), CPU]
    if tensorrt is not None:
        found.insert(0, (TENSORRT, {**tensorrt, "device_id": config.gpu}))
    for name, _ in found[:-1]:
        if name not in ort.get_available_providers():
            raise batching.refuse(
                f"the instance is KIND_GPU and this ONNX Runtime knows no {name}",
                "Install onnxruntime-gpu instead of onnxruntime, or set kind: KIND_CPU.",
            )
    return found


def tensorrt_options(config):
    """Those of ONNX Runtime's provider, None where config.pbtxt has no such accelerator."""
    named = config.accelerators
    batching.refuse_accelerators(named["cpu"])
    batching.refuse_accelerators([one for one in named["gpu"] if one[0] != "tensorrt"])
    if not named["gpu"]:
        return None
    options = {}
    for key, value in named["gpu"][0][1].items():
        if key == "precision_mode" and value in PRECISIONS:
            options.update(PRECISIONS[value])
        elif key in TENSORRT_FLAGS and value in ("0", "1", "true", "false"):
            options[key] = "True" if value in ("1", "true") else "False"
        elif key == "max_workspace_size_bytes" and value.isdecimal():
            options["trt_max_workspace_size"] = value
        elif key == "trt_engine_cache_path":
            options[key] = value
        else:
            raise batching.refuse(
                f"parameter {key} of the tensorrt accelerator is {value!r}",
                "Set precision_mode FP32, FP16 or BF16, max_workspace_size_bytes a whole number, "
                f"{' and '.join(TENSORRT_FLAGS)} 0 or 1, or trt_engine_cache_path.",
            )
    return options


def check(role, config, ports, seen):
    """Names, types and dims of the config against those of the model."""
    if {port.name for port in ports} != set(seen):
        raise batching.refuse(
            f"config.pbtxt has {role}s {sorted(port.name for port in ports)}, "
            f"{config.file} has {sorted(seen)}",
            "Correct config.pbtxt, or export the model again.",
        )
    for port in ports:
        have = seen[port.name]
        if config.batched and isinstance(have.shape[0], int):
            raise batching.refuse(
                f"{role} {port.name} of {config.file} has the fixed batch {have.shape[0]}",
                "Export it with a dynamic first dimension, or set max_batch_size: 0.",
            )
        if ONNX_TYPES.get(have.type) != port.dtype.name or batching.shape_differs(
            port.dims, have.shape, config.batched
        ):
            raise batching.refuse(
                f"{role} {port.name} of {config.file} is {have.type}{have.shape}, "
                f"config.pbtxt says {port}" + (" without the batch" if config.batched else ""),
                "Correct config.pbtxt, or export the model again.",
            )
