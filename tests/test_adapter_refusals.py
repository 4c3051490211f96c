"""What `recserve adapt` refuses: a module that breaks the contract, a name, a fault in the file."""

from __future__ import annotations

from pathlib import Path

import pytest
from adapted import BROKEN, Mean

from recommender import config
from recommender.adapter import adapt, builder, check_name
from recommender.data.dataset import Dataset
from recommender.errors import BadInput, RunError


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.__name__)
def test_a_module_that_breaks_the_contract_is_refused_by_name(
    dataset: Dataset, tmp_path: Path, broken: type[Mean]
) -> None:
    with pytest.raises(RunError, match=BROKEN[broken]):
        adapt(
            dataset, lambda known: broken(len(known.catalogue) + 1), tmp_path / "run",
            name="broken", config=config.read(),
        )  # fmt: skip
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["Mine", "1st", "a/b", "", "deep", "item_knn", "recommender"])
def test_a_name_that_cannot_be_a_model_or_is_taken_is_refused(name: str) -> None:
    with pytest.raises(BadInput, match=r"--name|letters"):
        check_name(name)


@pytest.mark.parametrize(
    ("text", "module", "says"),
    [
        ("x = 1\n", "{}", "no function 'build'"),
        ("def build(dataset):\n    return 3\n", "{}", "gave 3"),
        ("def other(dataset):\n    1 / 0\n", "{}:other", r"line 2: other\(\) failed: ZeroDivision"),
        ("import nothing_of_that_name\n", "{}", "line 1: importing it failed: ModuleNotFound"),
    ],
)
def test_a_fault_in_the_users_file_is_named_with_its_line(
    dataset: Dataset, tmp_path: Path, text: str, module: str, says: str
) -> None:
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises((BadInput, RunError), match=says):
        builder(module.format(path))(dataset)
