"""A Study -> one HTML page: no script, no network, light and dark.

headline (what was asked, who won, by how much) -> plots and their tables
-> every family -> leak check -> every figure -> recipe, and how to do it again
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping
from typing import Any

from recommender.metrics import with_half
from recommender.report.command import REPORTS, written
from recommender.report.leaks import FAILED, NOTE, PASSED
from recommender.report.markup import Node, e, html, table
from recommender.report.measure import Study
from recommender.report.sections import (
    against,
    by_cutoff,
    command,
    data_digest,
    families,
    overview,
    signed,
    sliced,
)

_ASKED = {
    "leave-one-out": "For each of {queries:,} users the last event was held out. Each model, "
    "trained on the rows before it, ranked every one of the {items:,} items that the user had not "
    "had; the figures say how high the held-out one came.",
    "temporal": "Each model was trained on the rows before a moment and asked at that moment, "
    "once for each of the {queries:,} users who acted after it. It ranked every one of the "
    "{items:,} items that the user had not had; the figures say how high those came that the "
    "user took afterwards ({targets:,} in all).",
    "cold-items": "All events of {items:,} items, a random tenth, were hidden: to each model they "
    "are new. For each of {queries:,} users, given what the user did before the first of them, "
    "each model ranked those {items:,} alone; the figures say how high those came that the user "
    "took ({targets:,} in all). A random order finds 10 / {items:,} of them among the first 10.",
}
_METRICS = (
    "Mean over queries ± half a 95% interval (1.96 standard errors). hr: the share of queries with "
    "a held-out item among the first k. ndcg: the hits, each worth 1 / log2(rank + 1), divided by "
    "what the best order would give. recall and precision: hits by held-out items and by k; f1: "
    "their harmonic mean. mrr: 1 / rank of the first hit. coverage: the share of the catalogue "
    "among anybody's first k."
)
_COLOUR = {PASSED: "good", NOTE: "note", FAILED: "bad"}


def page(study: Study) -> str:
    """The page of `study`, whole: what it shows is what the JSON beside it holds."""
    return html(
        f"{study.protocol}: {_winner(study)} ranks best",
        _headline(study),
        overview(study),
        against(study),
        by_cutoff(study),
        sliced(study),
        families(study),
        _leaks(study),
        _every_figure(study),
        _recipe(study),
    )


def _winner(study: Study) -> str:
    lead = study.figures.lead
    return lead.first if lead else next(iter(study.models))


def _headline(study: Study) -> Node:
    winner, lead = _winner(study), study.figures.lead
    ndcg = study.figures.cutoffs[winner]["ndcg"][10]
    reached = f"NDCG@10 {ndcg.mean:.4f} ± {ndcg.half:.4f}"
    asked = _ASKED.get(study.protocol, "{queries:,} test queries over {items:,} items.").format(
        queries=study.queries["all"], items=study.items, targets=study.targets
    )
    if lead is None:
        title, verdict = f"{winner} reaches {reached}", "No other model was judged beside it."
    else:
        title = f"{winner} ranks best" if lead.significant else f"{winner} leads, perhaps by chance"
        verdict = (
            f"{reached}, ahead of {lead.other} by {lead.difference:.4f} (95% interval "
            f"{signed(lead.low)} to {signed(lead.high)}, ahead in {lead.above:.1%} of resamples). "
        )
        verdict += (
            "The difference is significant."
            if lead.significant
            else f"The difference is not significant: {study.queries['all']:,} queries cannot "
            "tell it from chance."
        )
    return e(
        "header",
        e("p", f"recserve evaluate · {study.protocol}", class_="kicker"),
        e("h1", title),
        e("p", verdict, class_="lede"),
        e("p", asked),
        e("p", "Leak check: ", *_leak_summary(study)),
    )


def _leak_summary(study: Study) -> list[Node | str]:
    count = Counter(finding.verdict for finding in study.leaks)
    if count[FAILED]:
        text, verdict = f"{FAILED}, {count[FAILED]} of {len(study.leaks)}", FAILED
    else:
        text, verdict = f"{count[PASSED]} passed, {count[NOTE]} to note", PASSED
    return [e("a", e("span", text, class_=_COLOUR[verdict]), href="#leaks"), "."]


def _leaks(study: Study) -> Node:
    checks = [
        e(
            "li",
            e("b", finding.verdict, class_=_COLOUR[finding.verdict]),
            e("span", e("b", finding.name[0].upper() + finding.name[1:]), f". {finding.text}"),
        )
        for finding in study.leaks
    ]
    return e(
        "section",
        e("h2", "Does the split let the future in?"),
        e("ul", *checks, class_="checks"),
        id="leaks",
    )


def _every_figure(study: Study) -> Node:
    parts: list[Node] = []
    for group, queries in study.queries.items():
        of = {family: groups[group] for family, groups in study.models.items()}
        metrics = next(iter(of.values()))
        rows = [
            [metric, *(with_half(figures[metric]) for figures in of.values())] for metric in metrics
        ]
        parts += [e("h3", f"{group}: {queries:,} queries"), table(["metric", *of], rows)]
    return e("section", e("h2", "Every figure"), e("p", _METRICS), *parts)


def _recipe(study: Study) -> Node:
    return e(
        "section",
        e("h2", "Recipe, and how to do it again"),
        data_digest(study.data),
        e("p", "The same figures, by the same versions on the same kind of machine; ",
          e("code", REPORTS), " is a new folder of your choice:"),
        command(study.command),
        e("p", "Every run of the report can be exported and served, the best like this:"),
        command(shlex.join(["recserve", "export", study.runs[_best_run(study)]])),
        e("details", e("summary", "All settings of the recipe"), _settings(study.config)),
    )  # fmt: skip


def _best_run(study: Study) -> str:
    """What wins may be a part of a model, which has no run of its own."""
    return max(study.runs, key=lambda family: study.figures.cutoffs[family]["ndcg"][10].mean)


def _settings(config: Mapping[str, Any]) -> Node:
    rows = [[f"{section}.{name}", written(value)]
            for section, values in config.items() for name, value in values.items()]  # fmt: skip
    return table(["setting", "value"], rows)
