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
    providers = ["CPUExecutionProvider"]
    if config.gpu is not None:
        if "CUDAExecutionProvider" not in ort.get_available_providers():
            raise batching.refuse(
                "the instance is KIND_GPU and this ONNX Runtime knows no CUDA",
                "Install onnxruntime-gpu instead of onnxruntime, or set kind: KIND_CPU.",
            )
        ort.preload_dlls()
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": config.gpu}))
    try:
        session = ort.InferenceSession(str(config.file), options, providers=providers)
    except Exception as error:
        raise batching.refuse(
            f"{config.file} cannot be read: {batching.reason(error)}", "Export the run again."
        ) from error
    if config.gpu is not None and session.get_providers()[0] != "CUDAExecutionProvider":
        raise batching.refuse(
            f"ONNX Runtime did not reach GPU {config.gpu}",
            "Install the CUDA and cuDNN libraries it names in the log, or set kind: KIND_CPU.",
        )
    return session


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
