"""What both python-based backends share: requests -> one batch -> views -> responses.

Runs inside Triton and imports numpy and triton_python_backend_utils, nothing of
the project. Knows the model only as a function from arrays to arrays, and the
config only as the JSON that Triton hands over; it is as strict as NVIDIA's
native backends, since what loads here must load there.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils

UNSUPPORTED = ("reshape", "allow_ragged_batch", "optional", "is_shape_tensor")


def refuse(what, remedy):
    """The load error, in one line; the remedy is its last sentence, by which callers know it."""
    return pb_utils.TritonModelException(f"{' '.join(what.split())}. {remedy}")


@dataclass(frozen=True)
class Port:
    """One input or output of the config; `dims` without the batch, -1 is dynamic."""

    name: str
    dtype: np.dtype
    dims: tuple

    @classmethod
    def read(cls, raw):
        for key in UNSUPPORTED:
            if raw.get(key):
                raise refuse(f"{raw['name']} sets {key}", "Remove it: this backend has no support.")
        dtype = np.dtype(pb_utils.triton_string_to_numpy(raw["data_type"]))
        return cls(raw["name"], dtype, tuple(int(d) for d in raw["dims"]))

    def __str__(self):
        return f"{self.name} {self.dtype}{list(self.dims)}"


@dataclass(frozen=True)
class Config:
    """What a backend needs of config.pbtxt and of the instance it runs as."""

    file: Path  # the weights
    inputs: tuple
    outputs: tuple
    batched: bool  # a first dimension that `dims` leaves out
    parameters: dict
    accelerators: dict  # "cpu" and "gpu" -> [(name, parameters), ...]
    warmups: tuple  # (rows, input name -> dims) of each sample
    gpu: "int | None"  # device id, None on the CPU

    @classmethod
    def read(cls, args, file_name):
        """Raises TritonModelException for numpy 2, a missing file, or what cannot be served."""
        if int(np.__version__.split(".")[0]) >= 2:
            raise refuse(
                f"numpy is {np.__version__}, with which this server reads zeros",
                "Install numpy<2.",
            )
        raw = json.loads(args["model_config"])
        file = Path(args["model_repository"]) / args["model_version"] / file_name
        if not file.is_file():
            raise refuse(f"{file} is missing", "Export the run again.")
        kind = args["model_instance_kind"]
        return cls(
            file=file,
            inputs=tuple(Port.read(one) for one in raw["input"]),
            outputs=tuple(Port.read(one) for one in raw["output"]),
            batched=int(raw.get("max_batch_size", 0)) > 0,
            parameters={k: v["string_value"] for k, v in raw.get("parameters", {}).items()},
            accelerators=read_accelerators(raw),
            warmups=tuple(
                (
                    int(sample["batch_size"]),
                    {name: [int(d) for d in one["dims"]] for name, one in sample["inputs"].items()},
                )
                for sample in raw.get("model_warmup", ())
            ),
            gpu=int(args["model_instance_device_id"]) if kind == "GPU" else None,
        )

    def threads(self, key):
        """The thread count under `key`; 1 when unset, since more oversubscribe small machines."""
        text = self.parameters.get(key, "1")
        if not re.fullmatch("[0-9]{1,3}", text):
            raise refuse(
                f"parameter {key} is {text!r}",
                "Set a whole number of threads below 1000, or 0 for the default.",
            )
        return int(text)


def read_accelerators(raw):
    found = raw.get("optimization", {}).get("execution_accelerators", {})
    return {
        device: [
            (one["name"], dict(one.get("parameters", {})))
            for one in found.get(f"{device}_execution_accelerator", ())
        ]
        for device in ("cpu", "gpu")
    }


def refuse_accelerators(named):
    """Natively, unknown ones of the instance's device; here those of the other device, too."""
    if named:
        raise refuse(
            f"config.pbtxt names the execution_accelerators {[name for name, _ in named]}",
            "Remove them: they are unknown here.",
        )


def shape_differs(dims, seen, batched):
    """Does a model's shape (None or a name = dynamic) contradict the config's `dims`?

    A fixed config dimension may stand over a dynamic one of the model, not the reverse.
    """
    wanted = (-1, *dims) if batched else dims
    have = [d if isinstance(d, int) else -1 for d in seen]
    return len(wanted) != len(have) or any(
        model not in (-1, config) for config, model in zip(wanted, have, strict=True)
    )


def reason(error):
    """What a runtime says went wrong, without where in its own sources."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    text = lines[-1] if any("Traceback" in line for line in lines) else " ".join(lines)
    text = re.sub(r"^.* failed:(/\S+:\d+ .*?\) )?", "", text)  # ONNX Runtime
    text = text.partition(". This is an internal miniz error")[0]  # torch, of any broken file
    return text if len(text) <= 300 else f"{text[:300]}…"


def probe(config, run):
    """Refuse a model that does not answer zeros as the config promises.

    A batch of 3 finds a frozen batch of 1. The warm-up's shapes are tried here as well, since
    this server loads a model whose warm-up fails.
    """
    for rows, dims in ((3, {}), *config.warmups):
        lead = (rows,) if config.batched else ()
        inputs = [
            np.zeros((*lead, *(dims.get(p.name) or [5 if d == -1 else d for d in p.dims])), p.dtype)
            for p in config.inputs
        ]
        try:
            outputs = run(inputs)
        except Exception as error:
            raise refuse(
                f"{config.file} fails on an input as config.pbtxt declares it: {reason(error)}",
                "Correct the inputs or outputs of config.pbtxt, or export the model again.",
            ) from error
        for port, seen in zip(config.outputs, outputs, strict=True):
            check_output(config, port, seen, lead)


def check_output(config, port, seen, lead):
    dims = seen.shape[len(lead) :]
    if (
        seen.dtype != port.dtype
        or seen.shape[: len(lead)] != lead
        or len(dims) != len(port.dims)
        or any(want not in (-1, have) for want, have in zip(port.dims, dims, strict=True))
    ):
        raise refuse(
            f"output {port.name} of {config.file} is {seen.dtype}{list(seen.shape)} for a "
            f"batch of {list(lead)}, config.pbtxt says {port}",
            "Correct config.pbtxt, or export the model again.",
        )


class Batcher:
    """Answers Triton's requests by one call of `run(list of inputs) -> list of outputs`.

    Both lists are in the config's order.
    """

    def __init__(self, config, run):
        self.config = config
        self.run = run

    def execute(self, requests):
        """One response per request, in order; a bad request fails alone."""
        responses = [None] * len(requests)
        groups = {}
        for index, request in enumerate(requests):
            # Once for all: get_input_tensor_by_name() would list them again for each.
            given = {tensor.name(): tensor for tensor in request.inputs()}
            arrays = [given[port.name].as_numpy() for port in self.config.inputs]
            # Triton's core never joins different shapes; were it to, they would part here.
            shapes = tuple(a.shape[1:] for a in arrays) if self.config.batched else index
            groups.setdefault(shapes, []).append((index, arrays))
        for group in groups.values():
            for index, response in self._answer(group, requests):
                responses[index] = response
        return responses

    def _answer(self, group, requests):
        try:
            outputs = self._run(group)
            self._check_rows(group, outputs)
        except Exception as error:
            if len(group) > 1:  # find the one at fault: its neighbours must not suffer
                return [pair for one in group for pair in self._answer([one], requests)]
            index, arrays = group[0]
            return [(index, pb_utils.InferenceResponse(error=self._explain(arrays, error)))]
        answers, start = [], 0
        for index, arrays in group:
            stop = start + len(arrays[0])
            wanted = set(requests[index].requested_output_names())
            tensors = [
                pb_utils.Tensor(port.name, out[start:stop] if self.config.batched else out)
                for port, out in zip(self.config.outputs, outputs, strict=True)
                if port.name in wanted
            ]
            answers.append((index, pb_utils.InferenceResponse(output_tensors=tensors)))
            start = stop
        return answers

    def _run(self, group):
        if len(group) == 1:
            return self.run(group[0][1])
        columns = zip(*(arrays for _, arrays in group), strict=True)
        return self.run([np.concatenate(column) for column in columns])

    def _check_rows(self, group, outputs):
        """Else everybody behind the missing row would get a neighbour's answer."""
        rows = sum(len(arrays[0]) for _, arrays in group)
        seen = [len(out) for out in outputs]
        if self.config.batched and any(have != rows for have in seen):
            raise ValueError(f"it answers {seen} rows to {rows}")

    def _explain(self, arrays, error):
        """An inference error: the caller's fault where its dynamic dimensions do not fit."""
        lengths = {
            port.name: array.shape[1:] if self.config.batched else array.shape
            for port, array in zip(self.config.inputs, arrays, strict=True)
            if -1 in port.dims
        }
        if len(set(lengths.values())) > 1 or any(0 in shape for shape in lengths.values()):
            shown = ", ".join(f"{name} {list(shape)}" for name, shape in lengths.items())
            return pb_utils.TritonError(
                f"lengths do not fit each other: {shown}. Send one length, at least 1.",
                pb_utils.TritonError.INVALID_ARG,
            )
        return pb_utils.TritonError(f"{self.config.file.name} failed: {reason(error)}")
