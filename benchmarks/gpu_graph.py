"""The deep graph, eager, as TorchScript and as ONNX, on the GPU and on the CPU, by items, batch and
history.

A time is from arrays on the host to answers on the host, as a server needs it. TorchScript and
ONNX are prepared as `serving/backends` does. Whatever does not fit into memory, or would take the
CPU more than seconds, is left out and said so.
"""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnxruntime as ort
import torch
import torch.nn.functional as F
from gpu_floors import CPU, GPU, Floors, gpu_ms, tf32_allowed, wall_ms
from gpu_random import needed, questions, random_graph
from torch import nn

from export.parity import compare
from export.to_onnx import write_onnx
from export.to_torchscript import traced
from recommender.config import Config
from recommender.contract import Array, Limits
from recommender.errors import ReleaseError
from recommender.models.deep import Deep
from recommender.models.graph import Graph
from recommender.models.scorer import UserInputs

ITEMS = (1_683, 12_000, 100_000, 1_000_000)
BATCHES = (1, 8, 32, 64, 128, 256)
LENGTHS = (64, 200)
CPU_SECONDS = 2.5  # what one batch may take there to be measured
CHECKED = 32  # rows
CUDA = ("CUDAExecutionProvider", {"device_id": 0, "use_tf32": 0})  # floats as exact as elsewhere

Answers = Callable[[Mapping[str, Array]], dict[str, Array]]


@dataclass(frozen=True, kw_only=True)
class Timed:
    """Median milliseconds; None where it was not measured."""

    items: int
    length: int
    batch: int
    floor: float
    eager: float | None
    script: float | None
    onnx: float | None
    cpu: float | None


@dataclass(frozen=True, kw_only=True)
class Checked:
    """GPU against CPU, both eager but for `form`."""

    items: int
    form: str
    rows: int
    same_lists: int
    largest: float | None  # difference of scores; None where the answers differ by more than ties
    said: str


def measure(floors: Floors, config: Config, items: int, limits: Limits) -> dict[str, Any]:
    """All about one size, as JSON."""
    graph = random_graph(items, config)
    cpu = answers_of(graph, CPU)
    slow = {  # before the graph moves; the CPU is asked shortest batches first
        length: _by_batch(cpu, items, limits, length, CPU_SECONDS) for length in LENGTHS
    }
    wanted = {length: cpu(questions(items, limits, _checked(items), length)) for length in LENGTHS}
    script = frozen(graph, limits, GPU)
    onnx, lacking = onnx_answers(graph, limits)
    moved = graph.to(GPU)
    forms = {"eager": answers_of(moved, GPU), "TorchScript": answers_of(script, GPU)}
    forms |= {"ONNX": onnx} if onnx else {}
    checks = [
        _check(
            items, form, answers(questions(items, limits, _checked(items), length)), wanted[length]
        )
        for form, answers in forms.items()
        for length in LENGTHS
    ]
    fast = {
        form: {length: _by_batch(answers, items, limits, length, None) for length in LENGTHS}
        for form, answers in forms.items()
    }
    timed = [
        Timed(
            items=items, length=length, batch=batch, floor=floors.ms(*needed(moved, batch, length)),
            eager=fast["eager"][length].get(batch), script=fast["TorchScript"][length].get(batch),
            onnx=fast["ONNX"][length].get(batch) if onnx else None, cpu=slow[length].get(batch),
        )
        for length in LENGTHS
        for batch in BATCHES
    ]  # fmt: skip
    found = {"timed": [asdict(t) for t in timed], "checked": [asdict(c) for c in checks]}
    found |= {"no onnx": lacking} if lacking else {}
    if items == max(ITEMS):
        found["parts"] = dict(parts(moved, items, limits))
    del graph, moved, script, onnx, forms
    freed()
    return found


def _checked(items: int) -> int:
    return CHECKED if items < 1_000_000 else 2


# --- who answers


def frozen(graph: nn.Module, limits: Limits, device: torch.device) -> Any:
    """As the `pytorch` backend holds it."""
    return torch.jit.freeze(traced(graph, limits).to(device).eval())


def answers_of(module: Any, device: torch.device, *, optimized: bool = False) -> Answers:
    """As that backend asks it, unless `optimized`."""

    @torch.inference_mode()
    def answers(arrays: Mapping[str, Array]) -> dict[str, Array]:
        given = [torch.from_numpy(array).to(device) for array in arrays.values()]
        with torch.jit.optimized_execution(optimized):
            item, score = module(*given)
        return {"item": item.cpu().numpy(), "score": score.cpu().numpy()}

    return answers


def onnx_answers(
    graph: Graph, limits: Limits, provider: tuple[str, dict[str, int]] = CUDA
) -> tuple[Answers | None, str]:
    """By ONNX Runtime, as the `onnxruntime` backend asks it; or why not."""
    name, _ = provider
    if name not in ort.get_available_providers():
        return None, f"onnxruntime {ort.__version__} as installed knows no {name}"
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    if provider is CUDA:
        ort.preload_dlls()
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            write_onnx(graph, limits, path)
            session = ort.InferenceSession(str(path), options, providers=[provider])
    except Exception as error:  # too large for one file, a node without a kernel: said on the page
        return None, str(error).strip().splitlines()[-1][:200]
    if name not in session.get_providers():
        return None, f"ONNX Runtime did not reach {name}"

    def answers(arrays: Mapping[str, Array]) -> dict[str, Array]:
        item, score = session.run(["item", "score"], dict(arrays))
        return {"item": item, "score": score}

    return answers, ""


def _by_batch(
    answers: Answers, items: int, limits: Limits, length: int, at_most: float | None
) -> dict[int, float]:
    """Milliseconds by batch; ends where memory does, or where one batch takes `at_most` s."""
    found: dict[int, float] = {}
    for batch in BATCHES:
        if at_most and found and max(found.values()) / max(found) * batch > at_most * 1e3:
            break
        asked = questions(items, limits, batch, length)
        try:
            for _ in range(1 if at_most else 4):
                answers(asked)
            found[batch] = wall_ms(lambda asked=asked: answers(asked), rounds=21, seconds=0.5)
        except (torch.cuda.OutOfMemoryError, ort.capi.onnxruntime_pybind11_state.RuntimeException):
            freed()
            break
    return found


def freed() -> None:
    gc.collect()
    torch.cuda.empty_cache()


def _check(items: int, form: str, seen: dict[str, Array], wanted: dict[str, Array]) -> Checked:
    same = int((seen["item"] == wanted["item"]).all(axis=1).sum())
    try:
        largest, said = compare(wanted, seen, f"{form}, {items:,} items"), ""
    except ReleaseError as error:
        largest, said = None, error.what
    return Checked(items=items, form=form, rows=len(seen["item"]), same_lists=same,
                   largest=largest, said=said)  # fmt: skip


# --- where the time goes


@torch.inference_mode()
def parts(graph: Graph, items: int, limits: Limits, rows: int = 32) -> Iterator[tuple[str, float]]:
    """Milliseconds on the device of what the graph does, and of what it could do instead."""
    deep = graph.scorer
    assert isinstance(deep, Deep)
    given = [torch.from_numpy(a).to(GPU) for a in questions(items, limits, rows, 64).values()]
    user: UserInputs = graph.user(*given[:5])
    query = deep.query(user)
    scores = deep.mix(user, query)
    yield "encoder", gpu_ms(lambda: deep.query(user))
    yield "item vectors, float32", gpu_ms(lambda: F.linear(query, deep.table, deep.bias))
    with tf32_allowed(True):
        yield "item vectors, TF32", gpu_ms(lambda: F.linear(query, deep.table, deep.bias))
    half = [tensor.half() for tensor in (query, deep.table, deep.bias)]
    yield "item vectors, float16", gpu_ms(lambda: F.linear(*half))
    yield "heads: neighbour tables", gpu_ms(lambda: deep.mixer.said(user, deep.tables))
    yield "other signals", gpu_ms(lambda: deep.others(user, query))
    yield "all signals and the mixer", gpu_ms(lambda: deep.mix(user, query))
    yield "selection", gpu_ms(lambda: graph.selection(scores, given[5], given[6]))
    yield "top-k of float32 alone", gpu_ms(lambda: scores.topk(limits.answers, dim=1))
    yield "whole graph", gpu_ms(lambda: graph(*given))


# --- what optimized execution costs, and whether it is right


def optimized(config: Config, limits: Limits, items: int = 1_683) -> list[dict[str, Any]]:
    """The first three answers to each of several shapes, with TorchScript's optimized execution
    and without: milliseconds of each, and how many rows list what eager lists on the CPU."""
    shapes = ((32, 64), (32, 200), (5, 64), (64, 16), (1, 200), (17, 64))
    asked = [questions(items, limits, rows, length) for rows, length in shapes]
    wanted = [answers_of(random_graph(items, config), CPU)(one) for one in asked]
    found = []
    for on in (True, False):
        answers = answers_of(frozen(random_graph(items, config), limits, GPU), GPU, optimized=on)
        for (rows, length), one, right in zip(shapes, asked, wanted, strict=True):
            took, same = [], []
            for _ in range(3):
                started = time.perf_counter()
                seen = answers(one)
                took.append((time.perf_counter() - started) * 1e3)
                same.append(int((seen["item"] == right["item"]).all(axis=1).sum()))
            found.append(
                {"optimized": on, "rows": rows, "length": length, "ms": took, "same": same}
            )
    freed()
    return found
