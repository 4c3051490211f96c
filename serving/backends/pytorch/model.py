"""Triton backend "pytorch" without NVIDIA's native one: same config, same answers.

One instance is one process with the TorchScript module `<version>/model.pt`. Imports
only numpy, Triton's utilities and torch.
"""

import os
import sys

# The stubs of Python 3.11 and 3.12 ignore PYTHONPATH: take its entries ourselves.
sys.path[:0] = [
    os.path.dirname(os.path.abspath(__file__)),  # noqa: PTH100, PTH120 - before any import
    *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)),
]

import batching  # noqa: E402
import torch  # noqa: E402


class TritonPythonModel:
    def initialize(self, args):
        config = batching.Config.read(args, "model.pt")
        batching.refuse_accelerators([*config.accelerators["cpu"], *config.accelerators["gpu"]])
        set_threads(config)
        device = torch.device("cpu" if config.gpu is None else f"cuda:{config.gpu}")
        if config.gpu is not None and not torch.cuda.is_available():
            raise batching.refuse(
                "the instance is KIND_GPU and this torch reaches no GPU",
                "Install a CUDA build of torch, or set kind: KIND_CPU.",
            )
        optimized = not disabled(config, "DISABLE_OPTIMIZED_EXECUTION")
        module = open_module(config, device)
        to_forward = input_order(config, module)
        from_forward = output_order(config)

        @torch.inference_mode()
        def run(arrays):
            given = [torch.from_numpy(arrays[i]).to(device) for i in to_forward]
            with torch.jit.optimized_execution(optimized):
                seen = module(*given)
            seen = seen if isinstance(seen, (tuple, list)) else (seen,)
            if len(seen) != len(from_forward):
                raise ValueError(f"forward() gives {len(seen)} outputs, not {len(from_forward)}")
            return [seen[i].cpu().numpy() for i in from_forward]

        batching.probe(config, run)
        self.batcher = batching.Batcher(config, run)

    def execute(self, requests):
        return self.batcher.execute(requests)


def set_threads(config):
    intra, inter = config.threads("INTRA_OP_THREAD_COUNT"), config.threads("INTER_OP_THREAD_COUNT")
    if intra:
        torch.set_num_threads(intra)
    if inter:
        torch.set_num_interop_threads(inter)


def disabled(config, key):
    """Is the parameter `key` set to true? Unset is false, as natively."""
    text = config.parameters.get(key, "false")
    if text not in ("true", "false"):
        raise batching.refuse(f"parameter {key} is {text!r}", "Set it to true or false.")
    return text == "true"


def open_module(config, device):
    try:
        module = torch.jit.load(str(config.file), map_location=device)
    except Exception as error:
        raise batching.refuse(
            f"{config.file} is no TorchScript: {batching.reason(error)}",
            "Export the run again: what torch.save writes is not served.",
        ) from error
    if hasattr(module, "training"):  # one exported frozen has no such attribute
        module = torch.jit.freeze(module.eval())
    return module


def input_order(config, module):
    """For each argument of forward(), the position of its input in the config.

    By argument name, else by the index of NAME__INDEX. The native backend falls
    back to the config's order with a warning; that is refused here.
    """
    arguments = [a.name for a in module.forward.schema.arguments[1:]]
    names = [port.name for port in config.inputs]
    if set(names) == set(arguments):
        return [names.index(argument) for argument in arguments]
    indexes = [index_of(name) for name in names]
    if sorted(i for i in indexes if i is not None) == list(range(len(arguments))):
        return [indexes.index(i) for i in range(len(arguments))]
    raise batching.refuse(
        f"config.pbtxt has inputs {names}, forward() of {config.file} takes {arguments}",
        "Name the inputs as forward() does, or NAME__0, NAME__1 and so on in its order.",
    )


def output_order(config):
    """For each output of the config, its position in forward()'s result: by NAME__INDEX if all
    have one, else in the order of the config, as the native backend does."""
    names = [port.name for port in config.outputs]
    in_order, indexes = list(range(len(names))), [index_of(name) for name in names]
    if None in indexes:
        return in_order
    if sorted(indexes) != in_order:
        raise batching.refuse(
            f"config.pbtxt has outputs {names}",
            "Name them NAME__0, NAME__1 and so on in the order of forward()'s result.",
        )
    return indexes


def index_of(name):
    _, mark, index = name.partition("__")
    return int(index) if mark and index.isdecimal() else None
