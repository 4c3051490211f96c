"""A score taken apart -> a sentence: what of the history, and which signals, spoke for an item.

    signal, value, history_share of one item ─> Reason: text, items, signals

Only what raised the score, by what the item has more of than others, is a reason; what lowered
it, or raised it by being absent, has no words. Signals of one kind (popularity by several
half-lives, several readings of one table) count as one: between them, weights may cancel out.
Knows no torch and no server: numbers come from recommender/models/explain.py, or from Triton.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from recommender.catalogue import Catalogue
from recommender.config import HEADS
from recommender.contract import Array

_MOST = 3  # kinds of signals in a sentence
_LEAST = 0.1  # of what the strongest kind adds: less is not worth a word
_MOST_ITEMS = 2  # of the history in a sentence
_LEAST_SHARE = 0.25  # of what the strongest of them adds

# What a reading of the history says of the items it names, by its table.
_READ = {
    "ease": "chosen by the same people",
    "ease_recent": "chosen by the same people lately",
    "similar": "chosen by the same people",
    "basket": "often in the same baskets",
    "following": "often comes soon after",
    "content": "of the same kind",
    "repeat": "chosen before",
}
_PEOPLE = ("ease", "ease_recent", "similar")  # tables that say one thing
_WHEN = ((1.5, "today"), (4.0, "these days"), (14.0, "this week"), (60.0, "this month"))


@dataclass(frozen=True, kw_only=True)
class Signal:
    name: str
    value: float  # above its mean over the catalogue
    contribution: float  # to the score; those of all signals sum up to it


@dataclass(frozen=True, kw_only=True)
class Said:
    """An item of the history, and what all its events add to the score."""

    item_id: str
    title: str | None
    contribution: float


@dataclass(frozen=True, kw_only=True)
class Reason:
    text: str  # one sentence
    items: tuple[Said, ...]  # those that the sentence names, the strongest first
    signals: tuple[Signal, ...]  # all of them, the strongest first


@dataclass(frozen=True, kw_only=True)
class Wording:
    """What the words depend on beside the numbers."""

    names: Sequence[str]  # [S] models.explain.signal_names
    catalogue: Catalogue
    user_columns: Sequence[str]
    real_time: bool  # without it there is no week and no month

    def reason(self, signal_S: Array, value_S: Array, share_L: Array, history_L: Array) -> Reason:
        """Of one item: rows of the explainer's outputs, and the history [L] that it was given."""
        signals = [
            Signal(name=name, value=float(value) + 0.0, contribution=float(contribution) + 0.0)
            for name, value, contribution in zip(self.names, value_S, signal_S, strict=True)
        ]
        signals.sort(key=lambda signal: -signal.contribution)
        kinds = self._kinds(signals, history=bool((history_L > 0).any()))
        said = self._said(share_L, history_L)
        read = [words for name, words in kinds if name in HEADS] if said else []
        rest = [words for name, words in kinds if name not in HEADS]
        items = said if read else ()
        return Reason(text=_sentence(items, read, rest), items=items, signals=tuple(signals))

    def _kinds(self, signals: Sequence[Signal], *, history: bool) -> list[tuple[str, str]]:
        """Name of the strongest signal and words, of the kinds that spoke most."""
        sums: dict[str, float] = {}
        leading: dict[str, tuple[str, str]] = {}
        for signal in signals:  # the strongest first
            kind = _kind(signal.name)
            sums[kind] = sums.get(kind, 0.0) + signal.contribution
            words = self._words(signal, history)
            if signal.contribution > 0 and words is not None:
                leading.setdefault(kind, (signal.name, words))
        strongest = sorted((kind for kind in leading if sums[kind] > 0), key=lambda k: -sums[k])
        return [leading[k] for k in strongest[:_MOST] if sums[k] >= _LEAST * sums[strongest[0]]]

    def _words(self, signal: Signal, history: bool) -> str | None:
        name, more = signal.name, signal.value > 0
        if name == "age":
            return "long in the catalogue" if more else "new in the catalogue"
        if not more:
            return None
        if name in HEADS:
            return _READ[HEADS[name].source]
        if name == "encoder":
            return "a usual next step in a history like this" if history else "a usual start"
        if name == "new":
            return "new in the catalogue"
        if name.startswith("affinity "):
            column = int(name.removeprefix("affinity "))
            known = column < len(self.user_columns)
            return f"chosen by users of the same {self.user_columns[column]}" if known else None
        return f"popular {self._when(name)}" if _kind(name) == "popularity" else None

    def _when(self, name: str) -> str:
        if name in ("popularity", "trend of all"):
            return "overall"
        days = float(name.removeprefix("trend of ").removesuffix(" days"))
        if not self.real_time:
            return "lately"
        return next((words for most, words in _WHEN if days <= most), "in these months")

    def _said(self, share_L: Array, history_L: Array) -> tuple[Said, ...]:
        """Items of the history that spoke most for it, all events of each together."""
        sums: dict[int, float] = {}
        for item, share in zip(history_L.tolist(), share_L.tolist(), strict=True):
            if item > 0:
                sums[item] = sums.get(item, 0.0) + share
        order = sorted((item for item in sums if sums[item] > 0), key=lambda item: -sums[item])
        return tuple(
            Said(
                item_id=self.catalogue.item_id(item),
                title=self.catalogue.title(item),
                contribution=sums[item],
            )
            for item in order[:_MOST_ITEMS]
            if sums[item] >= _LEAST_SHARE * sums[order[0]]
        )


def _kind(name: str) -> str:
    if name in HEADS:
        source = HEADS[name].source
        return "people" if source in _PEOPLE else source
    if name == "popularity" or name.startswith("trend of "):
        return "popularity"
    return "age" if name == "new" else name


def titled(item_id: str, title: str | None) -> str:
    return title or f"item {item_id}"


def _sentence(items: Sequence[Said], read: Sequence[str], rest: Sequence[str]) -> str:
    parts = list(rest)
    if read:
        named = " and ".join(titled(item.item_id, item.title) for item in items)
        parts.insert(0, f"because of {named}: {', '.join(read)}")
    if not parts:
        return "Nothing speaks for it in particular."
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}."
