"""What may be tuned and how far, what is kept of a trial, and the recipe as a file."""

from __future__ import annotations

from pathlib import Path

from trainings import small

from recommender import config
from recommender.config import Config
from recommender.data.config import DataConfig
from recommender.tune import BEST
from recommender.tuning.space import SETTINGS, space_of, to_toml
from recommender.tuning.trials import Journal, Trial


def test_best_toml_keeps_how_the_data_was_read(tmp_path: Path) -> None:
    data = DataConfig(repurchase=True, min_rating=4.0, columns={"my column": "text"})
    recipe = small("signals.use=ease,trend", "signals.half_life_days=1,7", "mixer.weight_decay=0")
    (tmp_path / BEST).write_text(to_toml(recipe, data, "two\nlines"))
    assert DataConfig.read(tmp_path / BEST) == data
    assert config.read(file=tmp_path / BEST) == recipe


def test_a_trial_that_diverged_is_kept_and_learned_from(tmp_path: Path) -> None:
    space = space_of(small(), "mixer")
    journal = Journal(tmp_path / "journal.log", space, 0)
    trial = Trial(number=0, settings={"mixer.epochs": 2}, score=None, seconds=1.0, failed="NaN")
    journal.add(trial)
    again = Journal(tmp_path / "journal.log", space, 0)
    assert again.trials == (trial,)
    assert again.propose() == journal.propose()
    assert again.propose().keys() == {setting.name for setting in space}


def test_a_value_outside_the_range_widens_it() -> None:
    (rate,) = space_of(small("mixer.learning_rate=0.3"), "mixer", ["mixer.learning_rate"])
    assert rate.high == 0.3
    (decay,) = space_of(small("mixer.weight_decay=0"), "mixer", ["mixer.weight_decay"])
    assert decay.low > 0  # drawn by factors, which never come to 0


def test_defaults_lie_in_the_ranges_and_settings_in_the_recipe() -> None:
    assert space_of(Config(), "all") == SETTINGS
