"""What stands beside the recommender, from the same weights: similar items, and given scores.

    query_item ─> a history of that item alone ─> scorer ─> scores ─> selection ─> item, score
    user ───────────────────────────────────────> scorer ─> scores ─> at candidates ─> score

The third, the explainer, has a module of its own (explain.py). Cleaning, selection and rounding
are the graph's (graph.py, selection.py), so that all kinds say the same of an item.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from recommender.contract import EXPLAINER, RANKER, RECOMMENDER, SIMILAR_ITEMS, Kind, Limits
from recommender.models.deep import Deep
from recommender.models.explain import Explainable, Explainer
from recommender.models.graph import Graph
from recommender.models.scorer import UserInputs


class SimilarItems(nn.Module):
    """The items that a history of the query item alone speaks for, at the end of the training
    data, to nobody in particular:

    deep                      by the signals that read the history (tables, encoder), weighed as
                              the mixer weighs them for one event; popularity breaks ties
    ease, item-knn, content   the item's row of the table; popularity breaks ties
    popularity                by popularity
    a model of the user's     what it recommends to that visitor

    So untouched items have similar ones, by their content. Without a query item: what is popular
    (of a user's own model, its answer to a stranger).
    """

    def __init__(self, graph: Graph, limits: Limits) -> None:
        super().__init__()
        self.model, self.user_features = graph, limits.user_features

    def forward(
        self, query_item: Tensor, exclude: Tensor, category_filter: Tensor
    ) -> tuple[Tensor, Tensor]:
        """`item` and `score`; the query item is excluded."""
        model, query_B1 = self.model, self.model.known(query_item)
        scorer, user = model.scorer, self._visitor(query_B1)
        scores_BN = scorer.alike(user) if isinstance(scorer, Deep) else scorer(user)
        excluded = torch.cat([model.known(exclude), query_B1], dim=1)
        item, score = model.selection(scores_BN, excluded, category_filter)
        return item, score

    def _visitor(self, query_B1: Tensor) -> UserInputs:
        now_B1 = torch.full_like(query_B1, self.model.clock)
        here_B1 = query_B1 > 0
        return UserInputs(
            history_BL=query_B1,
            time_BL=torch.where(here_B1, now_B1, 0),
            weight_BL=here_B1.to(torch.float32),
            request_time_B1=now_B1,
            features_BU=torch.zeros_like(query_B1).repeat(1, self.user_features),
        )


class Ranker(nn.Module):
    """The score that the recommender gives each candidate, whatever is excluded or filtered; -inf
    for what is no item. Reads the whole catalogue, as the recommender does: a signal counts by
    how far an item stands out in it."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.model = graph

    def forward(
        self,
        history: Tensor,
        history_time: Tensor,
        history_weight: Tensor,
        request_time: Tensor,
        user_features: Tensor,
        candidates: Tensor,
    ) -> tuple[Tensor]:
        """`score`."""
        model = self.model
        user = model.user(history, history_time, history_weight, request_time, user_features)
        return (model.selection.of(model.scorer(user), model.known(candidates)),)


def modules(graph: Graph, limits: Limits) -> dict[Kind, nn.Module]:
    """The kinds of models that a release of `graph` has: all, but for the explainer of a scorer
    that nobody can take apart."""
    found: dict[Kind, nn.Module] = {
        RECOMMENDER: graph,
        SIMILAR_ITEMS: SimilarItems(graph, limits),
        RANKER: Ranker(graph),
    }
    if isinstance(graph.scorer, Explainable):
        found[EXPLAINER] = Explainer(graph, room=limits.signals)
    return {kind: module.eval() for kind, module in found.items()}
