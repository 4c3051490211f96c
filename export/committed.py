"""The configs that stand in git under `model_repository/`: those of MovieLens-100K.

    python -m export.committed      (make configs) writes them anew

`recserve export` of another data set writes its own limits over them.
"""

from __future__ import annotations

from pathlib import Path

from export.triton_config import backend_of, config_text
from recommender.contract import Limits, model_names

REPOSITORY = Path(__file__).parent.parent / "model_repository"
# Age, gender and occupation; 19 categories fit one word; a longest history of 737 events.
MOVIELENS = Limits(user_features=3, category_words=1, exclude=1024)


def configs() -> dict[Path, str]:
    """Path of each committed config -> its text."""
    return {
        REPOSITORY / model / "config.pbtxt": config_text(model, backend_of(model), MOVIELENS)
        for model in model_names("deep")
    }


if __name__ == "__main__":
    for path, text in configs().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
