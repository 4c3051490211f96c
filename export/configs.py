"""The `config.pbtxt` of every model of a repository, from its releases' limits and `triton.toml`.

    model_repository/
      triton.toml          how the models are served; absent: the defaults (serving_config.py)
      <model>/config.pbtxt

Both are written under the repository's lock, so that the configs always say what the file says,
after the next export too. Files only: a running server is not told.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from export.index import index_of, locked, write
from export.serving_config import Settings, parse
from export.triton_config import backend_of, config_text
from recommender.contract import Limits
from recommender.errors import BadInput
from recommender.release import Index, read_index, read_release

SETTINGS, CONFIG = "triton.toml", "config.pbtxt"


def configure(repository: Path, settings: Path | None = None) -> list[Path]:
    """Keep `settings` as the repository's triton.toml and write the configs it leads to.

    Without `settings`, by the triton.toml that is there. The files that changed. Raises
    BadInput for a setting that cannot be, ReleaseError where there is no release.
    """
    read_index(repository)  # before a lock file is written into any folder
    with locked(repository):
        return put(plan(repository, models_of(repository, index_of(repository)), settings))


def models_of(repository: Path, index: Index) -> dict[str, Limits]:
    """Every model of the releases that are there; all its releases have the same limits."""
    releases = (read_release(repository, version, verify=False) for version in index.releases)
    return {model: release.limits for release in releases for model in release.models}


def plan(repository: Path, models: Mapping[str, Limits], settings: Path | None) -> dict[Path, str]:
    """What triton.toml, if there is one, and each config are to say; writes nothing.

    Raises BadInput for a setting, a model or a value that cannot be.
    """
    kept = repository / SETTINGS
    source = settings or kept
    content = source.read_bytes() if settings or kept.exists() else None
    read = parse(content or b"", str(source))
    _check(read, models, repository, str(source))
    texts = {
        repository / model / CONFIG: config_text(model, backend_of(model), limits, read.of(model))
        for model, limits in models.items()
    }
    return texts if content is None else {kept: content.decode(), **texts}


def put(planned: Mapping[Path, str]) -> list[Path]:
    """Write what `plan` found, under the repository's lock; the files that were others."""
    changed = [p for p, text in planned.items() if not p.exists() or p.read_text() != text]
    for path in changed:
        write(path, planned[path])
    return changed


def _check(settings: Settings, models: Mapping[str, Limits], repository: Path, source: str) -> None:
    """What the text alone does not tell: which models there are, and their limits."""
    # Of releases that `gc` has removed, the folder and its config are still there.
    known = dict.fromkeys([*models, *(p.parent.name for p in repository.glob(f"*/{CONFIG}"))])
    for model, own in settings.by_model.items():
        if model not in known:
            raise BadInput(
                f"{source}: there is no model {model!r}",
                remedy=f"Models: {', '.join(known)}.",
                field=model,
            )
        if backend_of(model) == "pytorch" and own.tensorrt not in (
            "off",
            settings.everywhere.tensorrt,
        ):
            raise BadInput(
                f"{source}, [{model}]: tensorrt is {own.tensorrt!r}, and the model is TorchScript",
                remedy="Remove it: only ONNX models have that accelerator.",
                field="tensorrt",
            )
    for model, limits in models.items():
        sizes = settings.of(model).preferred_batch_sizes
        if max(sizes, default=0) > limits.max_batch_size:
            raise BadInput(
                f"{source}: preferred_batch_sizes is {list(sizes)}, and the largest batch of "
                f"{model} is {limits.max_batch_size}",
                remedy=f"Set sizes of at most {limits.max_batch_size}.",
                field="preferred_batch_sizes",
            )
