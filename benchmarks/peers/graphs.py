"""The release's graph in this process, a batch at a time: ONNX Runtime or TorchScript.

tensors {name: [B, ...]} -> item [B, K], score [B, K]
"""

from __future__ import annotations

from pathlib import Path

import onnxruntime
from common import Run, setting

from recommender.contract import Array

THREADS = int(setting("THREADS", "1"))
OPTIMIZED = setting("OPTIMIZED", "0") == "1"


def onnx(path: Path) -> Run:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = THREADS, 1
    session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])

    def run(tensors: dict[str, Array]) -> tuple[Array, Array]:
        item_BK, score_BK = session.run(["item", "score"], tensors)
        return item_BK, score_BK

    return run


def torchscript(path: Path) -> Run:
    import torch  # of no use to the others

    torch.set_num_threads(THREADS)
    module = torch.jit.freeze(torch.jit.load(str(path), map_location="cpu").eval())
    names = [argument.name for argument in module.forward.schema.arguments[1:]]

    @torch.inference_mode()
    def run(tensors: dict[str, Array]) -> tuple[Array, Array]:
        with torch.jit.optimized_execution(OPTIMIZED):
            item_BK, score_BK = module(*(torch.from_numpy(tensors[name]) for name in names))
        return item_BK.numpy(), score_BK.numpy()

    return run
