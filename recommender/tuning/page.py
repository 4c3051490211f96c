"""A Tuned -> one HTML page: the verdict, how the search went, what each setting does, every trial.

No script, no network, light and dark, as the pages of `recserve evaluate`.
"""

from __future__ import annotations

from typing import Any

from recommender.report.charts import Dot, Point, Series, dots, intervals, lines
from recommender.report.markup import Node, Row, details, e, figure, html, table
from recommender.report.sections import signed
from recommender.tuning.score import BOTH, Score
from recommender.tuning.space import Setting
from recommender.tuning.trials import Trial
from recommender.tuning.verdict import Finalist, Tuned

_BASE, _DRAWN, _PROPOSED = 1, 0, 2  # colours, and so shapes, of marks


def page(tuned: Tuned) -> str:
    return html(
        f"tune: {tuned.verdict}",
        _headline(tuned),
        _finals(tuned),
        _search(tuned),
        _marginals(tuned),
        _trials(tuned),
        _space(tuned),
    )


def value(score: float | None) -> str:
    return "–" if score is None else f"{score:.4f}"


def shown(setting: Any) -> str:
    return f"{setting:.4g}" if isinstance(setting, float) else str(setting)


def _headline(tuned: Tuned) -> Node:
    base, proposed = tuned.trials[0].settings, tuned.proposed
    title = "A better recipe" if proposed else "The recipe given stays"
    new = [
        f"{name} {shown(base[name])} → {shown(chosen)}"
        for name, chosen in (proposed.settings.items() if proposed else ())
        if chosen != base[name]
    ]
    which = "neither protocol tests"
    if tuned.protocol != BOTH:
        which = f"the {tuned.protocol} protocol does not test"
    timed = tuned.trials[0].score is not None and tuned.trials[0].score.window is not None
    return e(
        "header",
        e("p", "recserve tune", class_="kicker"),
        e("h1", title),
        e("p", tuned.verdict, class_="lede"),
        e("ul", *(e("li", change) for change in new)) if new else None,
        e("p", f"Chosen on validation: {tuned.rows:,} of the {tuned.all_rows:,} rows were used, "
               f"those that {which}. Of them the newest events of users"
               + (" and what came after the last cut in time" if timed else "")
               + " were asked for; the mixer that answered a user had learned from others."),
        e("p", "Score: NDCG@10, "
               + ("the mean of next items (each user counts once) and of the window after the "
                  "last cut." if timed else "of next items (each user counts once). Time is made "
                  "up in this data, so no window is asked for.")),
        e("p", "The base recipe, seed ", e("code", str(tuned.base.training.seed)), ", is trial 0. "
               f"The search ended {tuned.ended}. Data digest ", e("code", tuned.data), "."),
    )  # fmt: skip


def _finals(tuned: Tuned) -> Node:
    rows = [_final(finalist) for finalist in tuned.finals]
    seeds = ", ".join(map(str, tuned.seeds))
    compared = [finalist for finalist in tuned.finals[1:] if finalist.gains]
    points = [Point(mean=f.gain, low=f.gain - f.gain_spread, high=f.gain + f.gain_spread)
              for f in compared]  # fmt: skip
    chart = None
    if compared:
        labels = [f"trial {f.trial}" for f in compared]
        series = [Series(name="gain", points=points, colour=_PROPOSED)]
        drawn = intervals("Gain over the recipe given", labels, series, difference=True)
        chart = figure("Gain over the recipe given", drawn, "mean over seeds ± their spread")
    return e(
        "section",
        e("h2", "Again, with fresh seeds"),
        e("p", f"The search saw seed {tuned.base.training.seed} alone; its best few, and the base, "
               f"were trained again from nothing with seeds {seeds}, which held out other users' "
               "events and started from other weights. Spread: the standard deviation over seeds. "
               "A gain, taken seed by seed, is worth a change if it exceeds its spread."),
        e("div", chart, class_="charts") if chart is not None else None,
        table(["trial", *(f"seed {seed}" for seed in tuned.seeds), "mean ± spread",
               "gain ± spread", "worth it"], rows),
    )  # fmt: skip


def _final(one: Finalist) -> list[str | Node]:
    base = one.trial == 0
    mean = f"{one.mean:.4f} ± {one.spread:.4f}" if one.mean is not None else "diverged"
    gain = "–" if base or not one.gains else f"{signed(one.gain)} ± {one.gain_spread:.4f}"
    verdict = "base" if base else ("yes" if one.earned else "no")
    return [
        f"{one.trial}",
        *(value(score.value if score else None) for score in one.scores),
        mean,
        gain,
        verdict,
    ]


def _search(tuned: Tuned) -> Node:
    best, found = float("-inf"), []
    for trial in tuned.trials:
        best = max(best, _value(trial.score))
        found.append(Point(mean=best, low=best, high=best))
    chart = lines(
        "Best score so far",
        [str(trial.number) for trial in tuned.trials],
        [Series(name="best so far", points=found, colour=_DRAWN)],
        axis="trial",
        from_zero=False,
    )
    scores = [_dot(tuned, trial, trial.number) for trial in tuned.trials if trial.score]
    every = dots("Every trial", scores, axis="trial")
    return e(
        "section",
        e("h2", "The search"),
        e("p", "Square: the base. Triangle: the one proposed."),
        e(
            "div",
            figure("Best score so far", chart),
            figure("Every trial", every, "score by its number"),
            class_="charts",
        ),
    )


def _value(score: Score | None) -> float:
    return score.value if score else float("-inf")


def _dot(tuned: Tuned, trial: Trial, x: float) -> Dot:
    proposed = tuned.proposed is not None and trial.number == tuned.proposed.number
    colour = _BASE if trial.number == 0 else _PROPOSED if proposed else _DRAWN
    tip = f"trial {trial.number}, at {shown(x)}: {_value(trial.score):.4f}"
    return Dot(x=x, y=_value(trial.score), tip=tip, colour=colour)


def _marginals(tuned: Tuned) -> Node:
    charts = [_marginal(tuned, setting) for setting in tuned.space]
    return e(
        "section",
        e("h2", "Setting by setting"),
        e("p", "The score of every trial by one setting at a time, whatever the others were."),
        e("div", *charts, class_="charts"),
    )


def _marginal(tuned: Tuned, setting: Setting) -> Node | None:
    found = [
        _dot(tuned, trial, trial.settings[setting.name])
        for trial in tuned.trials
        if trial.score and (trial.settings[setting.name] > 0 or not setting.log)
    ]
    if not found:
        return None
    chart = dots(f"Score by {setting.name}", found, axis=setting.name, log=setting.log)
    return figure(setting.name, chart, setting.why)


def _trials(tuned: Tuned) -> Node:
    """Best first, those that diverged last."""
    ranked = sorted(tuned.trials, key=lambda trial: -_value(trial.score))
    rows = [
        [
            str(trial.number),
            value(trial.score.value) if trial.score else e("td", "diverged", class_="bad"),
            value(trial.score.next_item if trial.score else None),
            value(trial.score.window if trial.score else None),
            *(shown(trial.settings[setting.name]) for setting in tuned.space),
            f"{trial.seconds:,.1f}",
        ]
        for trial in ranked
    ]
    names = [setting.name for setting in tuned.space]
    return e(
        "section",
        e("h2", "Every trial"),
        e("p", "Best first. A trial after the first is quick where encoders and signals are those "
               "of the one before it."),
        table(["trial", "score", "next item", "window", *names, "seconds"], rows),
    )  # fmt: skip


def _space(tuned: Tuned) -> Node:
    rows: list[Row] = [
        [setting.name, f"{shown(setting.low)} to {shown(setting.high)}"
         + (", by factors" if setting.log else ""),
         shown(tuned.trials[0].settings[setting.name]), e("td", setting.why, class_="words")]
        for setting in tuned.space
    ]  # fmt: skip
    return e(
        "section",
        e("h2", "What was tuned"),
        table(["setting", "range", "base", "why"], rows),
        e("p", "best.toml beside this page is the recipe:"),
        e("pre", e("code", "recserve train DIR --config TUNE_DIR/best.toml --out RUN")),
        details("The base recipe", table(["setting", "value"], [
            [f"{section}.{name}", str(of)]
            for section, values in tuned.to_json()["base"].items() for name, of in values.items()
        ])),
    )  # fmt: skip
