"""Which versions a Triton in explicit mode holds, and what it has counted.

For whoever starts or promotes releases, over gRPC. Knows names, versions and
config texts; where they come from is the caller's business.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2, service_pb2

from client.over_grpc import TritonGrpc
from recommender.errors import BadInput, NotFound, ReleaseError, Unavailable

# Triton's flag of a restricted protocol names a key, and this is how gRPC sends it.
KEY = "control"
HEADER = f"triton-grpc-protocol-{KEY}"
NO_CHANGE: Mapping[str, str] = {}


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Of one version since it was loaded."""

    inferences: int  # rows answered (a request of batch 3 counts 3)
    executions: int  # batches run: inferences / executions is the mean batch
    failures: int  # requests that failed


class Control:
    """`async with Control(address, key) as triton:` — the repository side of one Triton server.

    `key` is the one with which the server restricts who may list, load and unload; statistics
    need none.
    """

    def __init__(self, address: str, key: str = "") -> None:
        self.tensors = TritonGrpc(address)
        self._headers = [(HEADER, key)]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.tensors.close()

    async def load(
        self,
        model: str,
        versions: Sequence[int],
        config_text: str,
        *,
        automatic: Mapping[str, str] = NO_CHANGE,
        timeout_s: float | None = None,
    ) -> None:
        """Have exactly `versions` of `model` loaded; versions already there keep running.

        `config_text` is the model's config.pbtxt. Replaced for this load only: its version
        policy and, where its backend stands in `automatic`, KIND_AUTO by the kind given
        there. Returns when all have loaded and warmed up. Raises ReleaseError with
        Triton's reason.
        """
        config = text_format.Parse(config_text, model_config_pb2.ModelConfig())
        config.version_policy.specific.versions[:] = sorted(versions)
        kinds = model_config_pb2.ModelInstanceGroup
        for group in config.instance_group:
            if group.kind == kinds.KIND_AUTO and config.backend in automatic:
                group.kind = kinds.Kind.Value(automatic[config.backend])
        request = service_pb2.RepositoryModelLoadRequest(model_name=model)
        request.parameters["config"].string_param = json_format.MessageToJson(
            config, preserving_proto_field_name=True, indent=None
        )
        try:
            await self._call("RepositoryModelLoad", request, timeout_s=timeout_s)
        except (BadInput, NotFound) as error:
            raise _refused(model, error.value) from error
        except Unavailable as error:
            if not await self.tensors.live():
                raise
            raise _refused(model, error.value) from error

    async def unload(self, model: str, *, timeout_s: float | None = None) -> None:
        """Unload every version of `model`, in-flight requests first."""
        request = service_pb2.RepositoryModelUnloadRequest(model_name=model)
        await self._call("RepositoryModelUnload", request, timeout_s=timeout_s)

    async def versions(self, model: str) -> list[int]:
        """Versions of `model` that answer now, oldest first."""
        return (await self.loaded()).get(model, [])

    async def loaded(self) -> dict[str, list[int]]:
        """Every model that answers now, with its versions, oldest first."""
        request = service_pb2.RepositoryIndexRequest(ready=True)
        response = await self._call("RepositoryIndex", request, timeout_s=5)
        found: dict[str, list[int]] = {}
        for one in response.models:
            found.setdefault(one.name, []).append(int(one.version))
        return {model: sorted(versions) for model, versions in found.items()}

    async def statistics(self, model: str, version: int) -> Statistics:
        """Raises NotFound where that version is not loaded."""
        request = service_pb2.ModelStatisticsRequest(name=model, version=str(version))
        response: Any = await self.tensors.call("ModelStatistics", request, timeout_s=5)
        (one,) = response.model_stats
        return Statistics(
            inferences=one.inference_count,
            executions=one.execution_count,
            failures=one.inference_stats.fail.count,
        )

    async def _call(self, method: str, request: Any, *, timeout_s: float | None) -> Any:
        return await self.tensors.call(method, request, timeout_s=timeout_s, headers=self._headers)


# "load failed for model 'm': version 3 is at UNAVAILABLE state: Internal: TritonModelException: "
PREAMBLE = re.compile(
    r"^load failed for model '[^']*': (version \d+ is at UNAVAILABLE state: )?"
    r"((Internal|Invalid argument|Not found|Unavailable): )?"
)
BACKEND = "TritonModelException: "  # what follows are our backends' words, the remedy last


def _refused(model: str, details: object) -> ReleaseError:
    what, remedy = PREAMBLE.sub("", str(details)), "Correct it, or load another release"
    if what.startswith(BACKEND) and ". " in what:
        what, _, remedy = what.removeprefix(BACKEND).rpartition(". ")
    return ReleaseError(f"Triton did not load {model}: {what}", remedy=f"{remedy}.")
