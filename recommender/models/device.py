"""Where a training computes: `training.device` -> a torch device of this machine."""

from __future__ import annotations

import torch

from recommender.errors import MachineError


def device_of(setting: str) -> torch.device:
    """`setting` is one of config.DEVICES; "auto" is the GPU where torch sees one.

    Raises MachineError where "cuda" is asked for and torch sees none.
    """
    there = torch.cuda.is_available()
    if setting == "cuda" and not there:
        raise MachineError(
            f"training.device is 'cuda', and torch {torch.__version__} sees no GPU here",
            remedy="Install a driver and a CUDA build of torch, or --set training.device=auto.",
            field="training.device",
        )
    return torch.device("cuda" if there and setting != "cpu" else "cpu")


def name_of(device: torch.device) -> str:
    """As a run records it."""
    return "cpu" if device.type == "cpu" else f"cuda ({torch.cuda.get_device_name(device)})"
