"""What is asked: which endpoints, and how many of their requests bear a filter.

    Mix.of("recommend=8,similar=1,events=1", "categories=0.2,exclude=0.1")    (or "0.2": categories)

Endpoints have weights, filters have shares of the requests that can bear one (recommend,
similar, popular). Knows no release and no server.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from recommender.errors import BadInput, shown

Endpoint = Literal["recommend", "similar", "rank", "popular", "events"]
FilterKind = Literal["categories", "exclude", "only"]
ENDPOINTS: tuple[Endpoint, ...] = get_args(Endpoint)
FILTERS: tuple[FilterKind, ...] = get_args(FilterKind)
FILTERED: tuple[Endpoint, ...] = ("recommend", "similar", "popular")  # take a filter


@dataclass(frozen=True, kw_only=True)
class Mix:
    endpoints: Mapping[Endpoint, float] = field(default_factory=lambda: {"recommend": 1.0})
    filters: Mapping[FilterKind, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _known(self.endpoints, ENDPOINTS, "mix")
        _known(self.filters, FILTERS, "filtered")
        if not sum(self.endpoints.values()) > 0:
            raise BadInput(
                "the mix asks for nothing",
                remedy="Give at least one endpoint a weight above 0: recommend=8,similar=1.",
                field="mix",
            )
        if sum(self.filters.values()) > 1 + 1e-9:
            raise BadInput(
                f"shares of filters sum up to {sum(self.filters.values()):g}",
                remedy="Together they are at most 1, all requests.",
                field="filtered",
            )

    @classmethod
    def of(cls, endpoints: str | None = None, filters: str | None = None) -> Mix:
        """From what stands in a command line. Raises BadInput."""
        mix = _numbers(endpoints or "recommend=1", ENDPOINTS, "mix")
        if filters and "=" not in filters:
            filters = f"categories={filters}"
        return cls(endpoints=mix, filters=_numbers(filters or "", FILTERS, "filtered"))


def _numbers(text: str, names: tuple[str, ...], option: str) -> dict[Any, float]:
    """`a=1,b=2` as a dictionary."""
    found: dict[Any, float] = {}
    for part in filter(None, text.split(",")):
        name, _, number = part.partition("=")
        try:
            found[name.strip()] = float(number)
        except ValueError:
            raise BadInput(
                f"--{option} has {shown(part)}, not NAME=NUMBER",
                remedy=f"Write for example {names[0]}=0.5,{names[1]}=0.1.",
                field=option,
                value=part,
            ) from None
    return found


def _known(numbers: Mapping[Any, float], names: tuple[str, ...], option: str) -> None:
    for name, number in numbers.items():
        if name not in names or not 0 <= number < float("inf"):
            raise BadInput(
                f"--{option} has {name}={number:g}",
                remedy=f"Names are {', '.join(names)}; numbers are 0 or more.",
                field=option,
                value=f"{name}={number:g}",
            )
