"""The figures of benchmarks/gpu.py -> one page of Markdown: tables, and what they were taken on."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import onnxruntime
import torch

Figures = dict[str, Any]


def about_machine(threads: int) -> Figures:
    asked = ["nvidia-smi", "--query-gpu=driver_version,memory.total", "--format=csv,noheader"]
    told = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    driver, memory = told.splitlines()[0].split(", ")
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "device": torch.cuda.get_device_name(),
        "memory": memory,
        "driver": driver,
        "torch": torch.__version__,
        "onnxruntime": onnxruntime.__version__,
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "cpu": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def page(found: Figures) -> str:
    parts = [
        _head(found["machine"]),
        _floors(found["floors"]),
        _graphs([v for name, v in found.items() if name.startswith("graph ")]),
        _optimized(found.get("optimized")),
        _training(found.get("training"), found.get("whole trainings")),
        _triton(found.get("triton")),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _head(m: Figures) -> str:
    rows = [
        ("device", f"{m['device']}, {m['memory']}"),
        ("driver", m["driver"]),
        ("torch", f"{m['torch']}, CUDA {m['cuda']}, Python {m['python']}"),
        ("ONNX Runtime", m["onnxruntime"]),
        ("CPU beside it", f"{m['cpu']}, {m['threads']} of {m['cores']} cores used"),
        ("date", m["date"]),
    ]
    told = "Written by `make bench-gpu`: figures of one machine, none of them a promise."
    return f"# On a GPU\n\n{told}\n\n{_table(('', ''), rows)}"


def _floors(f: Figures) -> str:
    rates = (("fp32", "float32"), ("tf32", "TF32"), ("fp16", "float16"))
    rows = [
        ("device-to-device copy, read and written", f"{f['bandwidth'] / 1e12:.2f} TB/s"),
        *((f"matrix product, {name}", f"{f[key] / 1e12:.0f} TFLOP/s") for key, name in rates),
    ]
    return f"## What the device can do\n\n{_table(('', 'measured'), rows)}"


GRAPH = """
The default recipe's deep graph with random weights, and tables of the width that a training on so
many items gives them; from arrays on the host to answers on the host, float32 (TF32 off). Of the
floor: the least time for the bytes that a batch must read (item vectors, one row of every other
table, the neighbour rows of its histories) or for the operations that it must do, whichever is
longer, at the rates above. rows/s and shares are TorchScript's; ONNX is by ONNX Runtime's CUDA
provider (`use_tf32` 0). –: not measured, because the device's memory ended, or because a batch
takes the CPU longer than 2.5 s.
"""
ALIKE = """
GPU against CPU: rows with the same items in the same order, and the largest difference of a
score. Items may change places only where their scores tie within 1e-4, as in every release.
"""
PARTS = """
Where a batch of 32 at {items:,} items spends its time, on the device alone, and what parts of it
would take otherwise:
"""


def _graphs(sizes: list[Figures]) -> str:
    if not sizes:
        return ""
    good = [one for one in sizes if "failed" not in one]
    said = ["## The graph", _line(GRAPH), _timed(good), _line(ALIKE), _checked(good)]
    for one in sizes:
        if "failed" in one:
            said.append(f"Not measured: {one['failed']}")
        if "no onnx" in one:
            items = one["timed"][0]["items"]
            said.append(f"ONNX at {items:,} items was not measured: {one['no onnx']}.")
        if "parts" in one:
            said.append(_line(PARTS.format(items=one["timed"][0]["items"])))
            said.append(_table(("", "ms"), [(n, f"{ms:.3f}") for n, ms in one["parts"].items()]))
    return "\n\n".join(said)


def _timed(good: list[Figures]) -> str:
    names = ("items", "history", "batch", "eager, ms", "TorchScript, ms", "rows/s", "of the floor",
             "ONNX, ms", "CPU eager, ms", "CPU / TorchScript")  # fmt: skip
    rows = [
        (f"{t['items']:,}", t["length"], t["batch"], _ms(t["eager"]), _ms(t["script"]),
         _rate(t["batch"], t["script"]), _share(t["floor"], t["script"]), _ms(t["onnx"]),
         _ms(t["cpu"]), _times(t["cpu"], t["script"]))
        for one in good for t in one["timed"]
    ]  # fmt: skip
    return _table(names, rows)


def _checked(good: list[Figures]) -> str:
    rows = [
        (f"{c['items']:,}", c["form"], f"{c['same_lists']} of {c['rows']}",
         f"{c['largest']:.1e}" if c["largest"] is not None else c["said"])
        for one in good for c in one["checked"]
    ]  # fmt: skip
    return _table(("items", "form", "same lists", "largest difference"), rows)


OPTIMIZED = """
The first three answers to each of several shapes, 1,683 items, one after the other: milliseconds,
and rows that list the same items in the same order as eager PyTorch on the CPU. Without is how
the TorchScript of a release is served, here and natively (`DISABLE_OPTIMIZED_EXECUTION`).
"""


def _optimized(found: Any) -> str:
    if not found:
        return ""
    head = "## TorchScript's optimized execution"
    if "failed" in found:
        return f"{head}\n\nNot measured: {found['failed']}"
    rows = [
        ("with" if one["optimized"] else "without", one["rows"], one["length"],
         *(f"{ms:,.1f}" for ms in one["ms"]),
         ", ".join(map(str, one["same"])))
        for one in found
    ]  # fmt: skip
    names = ("", "rows", "history", "first, ms", "second, ms", "third, ms", "right rows")
    return f"{head}\n\n{_line(OPTIMIZED)}\n\n{_table(names, rows)}"


def _training(steps: Any, whole: Any) -> str:
    if not steps:
        return ""
    if "failed" in steps:
        return f"## Training\n\nNot measured: {steps['failed']}"
    rows = [
        (f"{s['items']:,}", f"{s['events']:,}", f"{s['cuda']:.1f}", f"{s['cpu']:.1f}",
         f"{s['cuda'] / s['cpu']:.1f}")
        for s in steps
    ]  # fmt: skip
    said = [
        "## Training",
        "Steps a second of the encoder, the default recipe on random histories:",
        _table(("items", "events a batch", "GPU", "CPU", "GPU / CPU"), rows),
    ]
    if whole and "failed" in whole:
        said.append(f"Whole trainings were not measured: {whole['failed']}")
    elif whole:
        told = [(w["device"], f"{w['seconds']:.0f}", f"{w['ndcg@10']:.4f}") for w in whole]
        said.append("Whole trainings by `--preset quick`, on the data folder given:")
        said.append(_table(("device", "seconds", "held-out NDCG@10"), told))
    return "\n\n".join(said)


TRITON = """
The real tritonserver with this repository's backends and dynamic batching, {items:,} items,
histories padded to 64; single rows by gRPC, clients in four processes on the same {cores} cores;
KIND_CPU with {threads} threads. Golden requests, answered as at the export: {golden}.
"""


def _triton(found: Figures | None) -> str:
    if not found:
        return ""
    if "failed" in found:
        return f"## Triton\n\nNot measured: {found['failed']}"
    told = [
        (s["model"], f"KIND_{s['kind'].upper()}", s["clients"], f"{s['rows_s']:,.0f}",
         f"{s['p50_ms']:.1f}", f"{s['p99_ms']:.1f}")
        for s in found["served"]
    ]  # fmt: skip
    golden = "; ".join(
        f"{said['model']} KIND_{said['kind'].upper()} {said['rows']} rows, "
        f"scores within {said['largest']:.1e}"
        for said in found["golden"]
    )
    about = _line(TRITON.format(**{**found, "golden": golden}))
    table = _table(("model", "", "clients", "rows/s", "p50, ms", "p99, ms"), told)
    lacking = [f"{m} by KIND_GPU was not measured: {why}." for m, why in found["lacking"].items()]
    return "\n\n".join(["## Triton", about, table, *lacking])


def _line(text: str) -> str:
    """A paragraph on one line."""
    return " ".join(text.split())


def _table(head: Iterable[object], rows: Iterable[Iterable[object]]) -> str:
    lines = [head, ["---"] * len(tuple(head)), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:,.2f}" if value < 100 else f"{value:,.0f}"


def _rate(batch: int, ms: float | None) -> str:
    return "–" if ms is None else f"{batch / ms * 1e3:,.0f}"


def _share(floor: float, ms: float | None) -> str:
    return (
        "–" if ms is None else f"{floor / ms:.0%}" if floor / ms >= 0.095 else f"{floor / ms:.1%}"
    )


def _times(slow: float | None, fast: float | None) -> str:
    return "–" if slow is None or fast is None else f"{slow / fast:.1f}"
