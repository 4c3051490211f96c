"""Items that are alike lie near each other, whatever their language; new ones find their place."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp
from data_folders import events, items, write
from films import GENRES, films, fit, same

from recommender.data import content
from recommender.data.columns import guess
from recommender.data.config import DataConfig
from recommender.data.content import ContentSpace, similar_by_content
from recommender.data.dataset import load
from recommender.data.load import read_table
from recommender.data.terms import terms
from recommender.errors import DataError


def cosines(frame: pl.DataFrame, **settings: str) -> np.ndarray:
    matrix = fit(frame, DataConfig(columns=settings)).matrix(frame)
    return np.asarray((matrix @ matrix.T).todense())


# Text


TITLES = {
    "Chinese": ("红楼梦人物研究", "论红楼梦的结构", "深度学习入门", "机器学习与深度学习"),
    "Japanese": ("となりのトトロの森", "トトロと森の家", "銀河鉄道の旅", "夜の銀河鉄道"),
    "Thai": ("ต้มยำกุ้งน้ำข้น", "สูตรต้มยำกุ้ง", "รถไฟฟ้าสายใหม่", "แผนที่รถไฟฟ้า"),
    "Korean": ("고양이가 좋아", "고양이를 위한 집", "기차의 여행", "밤기차를 타다"),
    "Russian": ("Война и мир", "Большая ВОЙНА", "Тихий Дон", "Дон Кихот"),
    "Hindi": ("हिन्दी व्याकरण", "सरल हिन्दी", "भारत का इतिहास", "प्राचीन इतिहास"),
    "English": ("Star Wars (1977)", "A star is born", "Toy Story", "West Side Story!"),
    "full width": ("Ｓｔａｒ one", "STAR two", "Ｔｏｙ three", "toy four"),
}


@pytest.mark.parametrize("language", TITLES)
def test_titles_of_any_language_find_their_like(language: str) -> None:
    frame = pl.DataFrame({"item_id": list("abcd"), "title": TITLES[language]})
    near = cosines(frame)
    assert near[0, 1] > 0.5 and near[2, 3] > 0.5
    assert near[:2, 2:].max() < 0.2


def test_a_text_is_taken_apart_into_words_and_pieces_of_joined_scripts() -> None:
    texts = ["2001太空漫游 (Part II)", "हिन्दी फिल्म", "红 楼梦", "It's_ÉTÉ", None, "!"]
    found = terms("text", pl.Series("title", texts, pl.String))
    words = [sorted(found.filter(row=row)["term"]) for row in range(len(texts))]
    assert words[0] == sorted(["2001", "part", "ii", "太空", "空漫", "漫游", "太空漫", "空漫游"])
    assert words[1:] == [["फिल्म", "हिन्दी"], ["楼梦", "红"], ["it", "s", "été"], [], []]


def test_a_title_of_one_character_is_a_word() -> None:
    near = cosines(pl.DataFrame({"item_id": list("abc"), "title": ["猫", "猫", "犬"]}))
    assert near[0, 1] == pytest.approx(1)
    assert near[2, 2] == 0  # nothing is like it


def test_a_rare_word_says_more_than_a_common_one() -> None:
    titles = ["the whale", "the storm", "a whale", *["the"] * 20]
    near = cosines(pl.DataFrame({"item_id": [str(k) for k in range(23)], "title": titles}))
    assert near[0, 2] > near[0, 1] + 0.5


def test_a_title_of_words_of_its_own_is_not_likened_by_its_common_word() -> None:
    """ "The Godfather" and "The Piano" are no pair because of "The": their genres decide."""
    titles = ["the godfather", "the piano", "casino", *["the the"] * 3]
    genres = ["Crime", "Music", "Crime", "Music", "Crime", "Music"]
    frame = pl.DataFrame({"item_id": list("abcdef"), "title": titles, "categories": genres})
    near = cosines(frame)
    assert near[0, 2] > 0.8 > 0.4 > near[0, 1]


def test_words_are_kept_of_most_items_up_to_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content, "TERMS", 3)
    titles = ["red bird", "red bird", "red sea", "old sea", "old bird"]
    space = fit(pl.DataFrame({"item_id": list("abcde"), "title": titles}))
    assert space.blocks[0].terms == ("bird", "old", "red")
    assert space.blocks[0].counts == (3, 2, 3)


def test_slices_of_the_table_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = fit(films())
    matrix = whole.matrix(films())
    monkeypatch.setattr(content, "SLICE", 7)
    assert fit(films()) == whole
    assert same(whole.matrix(films()), matrix)


DESCRIPTIONS = {
    "Chinese": ("共{}页，讲述大观园里的兴衰与诗会", "3.{}升汤锅，配四川火锅底料和辣椒酱"),
    "Japanese": ("全{}話、森の妖精と姉妹の出会いの物語", "銀河鉄道で{}日間の旅に出る少年"),
    "Thai": ("ต้มยำกุ้งน้ำข้นสูตร{}ส่วนผสม", "แผนที่รถไฟฟ้าสายใหม่{}สถานี"),
}


@pytest.mark.parametrize("language", DESCRIPTIONS)
def test_descriptions_without_a_space_are_text_and_no_codes_whatever_figures_they_have(
    language: str, tmp_path: Path
) -> None:
    """Nothing but the description says which items are alike: every second one."""
    texts = [DESCRIPTIONS[language][k % 2].format(k + 10) for k in range(40)]
    frame = items(*(f"i{k}" for k in range(40))).with_columns(about=pl.Series(texts))
    rows = events(*((f"u{k % 7}", f"i{k}", 900000000 + k) for k in range(40)))
    dataset, report = load(write(tmp_path, interactions=rows, items=frame))
    assert [(c.name, c.kind) for c in report.columns] == [("about", "text")]
    at = [dataset.catalogue.index(f"i{k}") for k in range(40)]
    near, _ = similar_by_content(dataset.content, rows=np.array(at), most=19)
    for k, found in enumerate(near):
        assert sorted(found) == sorted(at[other] for other in range(k % 2, 40, 2) if other != k)


@pytest.mark.parametrize("code", ["京A{}", "{}年1月1日", "user{}@例.cn", "SKU-{}", "№{}"])
def test_codes_with_a_character_of_such_a_script_are_codes_still(code: str) -> None:
    kind, why = guess("code", pl.Series([code.format(k * 37 + 10000) for k in range(50)]))
    assert (kind, why.partition(":")[0]) == ("ignore", "codes")


# Columns


def test_genre_and_year_bring_films_near() -> None:
    rng = random.Random(4)
    years = [*range(1950, 2000)] * 4
    kinds = [GENRES[k // 50] for k in range(200)]
    order = rng.sample(range(200), 200)
    frame = pl.DataFrame(
        {
            "item_id": [str(k) for k in order],
            "categories": [kinds[k] for k in order],
            "year": [str(years[k]) for k in order],
        }
    )
    near = cosines(frame)
    at = {(kinds[k], years[k]): row for row, k in enumerate(order)}
    film = at["War", 1970]
    assert near[film, film] == pytest.approx(1)
    likeness = [near[film, at["War", year]] for year in (1970, 1971, 1973, 1977, 1990)]
    assert likeness == sorted(likeness, reverse=True)
    assert likeness[1] > 0.95 > likeness[4]
    assert near[film, at["War", 1990]] == pytest.approx(near[film, at["Drama", 1970]], abs=0.02)
    assert near[film, at["Drama", 1990]] == 0


def test_neighbouring_numbers_stay_near_where_each_fills_quantiles_of_its_own() -> None:
    years = [str(year) for year in range(1990, 2000) for _ in range(100)]
    frame = pl.DataFrame({"item_id": [str(k) for k in range(1000)], "year": years})
    near = cosines(frame, year="numeric")
    assert near[450, 400] == pytest.approx(1)
    assert near[450, [550, 650, 750]] == pytest.approx([2 / 3, 1 / 6, 0], abs=1e-6)


def test_text_and_categories_have_the_same_say() -> None:
    frame = pl.DataFrame(
        {
            "item_id": list("abcd"),
            "title": ["tall tree", "tall tree", "deep sea", "deep sea"],
            "categories": ["War|Old", "Love|New", "War|Old", "Love|New"],
        }
    )
    near = cosines(frame)
    assert near[0, 1] == pytest.approx(near[0, 2]) == pytest.approx(0.5)


def test_many_further_columns_have_no_more_say_than_one() -> None:
    columns = {f"column {k}": ["x", "x", "y", "y"] for k in range(9)}
    categories = ["A", "B", "A", "B"]
    one, many = (
        cosines(pl.DataFrame({"item_id": list("abcd"), "categories": categories, **further}))
        for further in (dict([*columns.items()][:1]), columns)
    )
    assert np.allclose(one, many, atol=1e-6)


def test_a_list_of_values_is_read_where_the_config_calls_it_categorical() -> None:
    frame = pl.DataFrame({"item_id": list("abc"), "tags": [["new", "red"], ["new"], ["red"]]})
    near = cosines(frame, tags="categorical")
    assert near[0, 1] > 0.5 and near[1, 2] == 0


@pytest.mark.parametrize(
    ("kind", "values", "said"),
    [
        ("numeric", ["red", "blue"], "column tags of items holds no number, first in row 1: 'red'"),
        ("text", [["a"], ["b"]], "column tags of items is of type List"),
        ("categorical", [{"a": 1}, {"a": 2}], "column tags of items is of type Struct"),
    ],
)
def test_a_column_that_is_not_of_its_kind_is_refused(
    kind: str, values: list[object], said: str
) -> None:
    with pytest.raises(DataError, match=said):
        fit(
            pl.DataFrame({"item_id": ["a", "b"], "tags": values}),
            DataConfig(columns={"tags": kind}),
        )


def test_items_of_an_id_alone_have_no_content() -> None:
    matrix = fit(items("a", "b")).matrix(items("a", "b"))
    assert matrix.shape == (2, 0)


# Rows


def test_rows_are_unit_vectors_or_zero() -> None:
    frame = films()
    unknown = pl.DataFrame({c: [None, " "] for c in frame.columns}, schema=frame.schema)
    matrix = fit(frame).matrix(pl.concat([frame, unknown]))
    lengths = np.sqrt((matrix.toarray() ** 2).sum(axis=1))
    assert np.allclose(lengths[:-2], 1, atol=1e-6)
    assert lengths[-2:].tolist() == [0, 0]
    assert matrix.dtype == np.float32


def test_values_never_seen_contribute_nothing() -> None:
    frame = films()
    space = fit(frame)
    strange = pl.DataFrame(
        {
            "title": ["unheard of", "", "unheard"],
            "categories": ["Opera", "War|Opera", "War"],
            "studio": ["new one", None, None],
            "year": ["MCMXC", "unknown", ""],
        }
    )
    matrix = space.matrix(strange)
    assert matrix.shape == (3, space.width)
    assert matrix[[0]].nnz == 0
    assert same(matrix[[1]], matrix[[2]])
    assert matrix[[1]].nnz == 1


def test_the_space_reads_back_from_json_to_the_same_matrix() -> None:
    frame = films()
    space = fit(frame)
    again = ContentSpace.from_json(json.loads(json.dumps(space.to_json())))
    assert again == space
    assert {b.kind for b in space.blocks} == {"categories", "categorical", "numeric", "text"}
    assert same(again.matrix(frame), space.matrix(frame))


def test_the_order_of_the_table_changes_no_row() -> None:
    frame = films()
    order = random.Random(2).sample(range(len(frame)), len(frame))
    shuffled = frame[order]
    assert fit(shuffled) == fit(frame)
    assert same(fit(shuffled).matrix(shuffled), fit(frame).matrix(frame)[order])


def test_new_items_of_a_file_with_other_columns_find_their_like(tmp_path: Path) -> None:
    frame = films()
    space = fit(frame)
    new = frame.head(3).select("item_id", "categories", "year", colour=pl.lit("red"))
    table = read_table(write(tmp_path, items=new), "items", ["item_id"], 100)
    assert table is not None
    matrix = space.matrix(table.frame)
    assert matrix.shape == (3, space.width)
    near = np.asarray((matrix @ space.matrix(frame).T).todense())
    for row, best in enumerate(near.argmax(axis=1)):
        assert set(frame["categories"][int(best)].split("|")) == set(
            new["categories"][row].split("|")
        )
        assert abs(int(frame["year"][int(best)]) - int(new["year"][row])) <= 5


# Neighbours


def neighbours_plainly(matrix: sp.csr_array, most: int) -> tuple[np.ndarray, np.ndarray]:
    near = np.asarray((matrix @ matrix.T).todense()).round(6)
    np.fill_diagonal(near, 0)
    order = np.argsort(-near, axis=1, kind="stable")[:, :most]
    value = np.take_along_axis(near, order, 1)
    return np.where(value > 0, order, 0), value


@pytest.mark.parametrize("most", [1, 5, 300])
def test_the_nearest_items_are_those_of_the_whole_product(
    most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = films(400)
    matrix = fit(frame).by_index(frame, 410)
    monkeypatch.setattr(content, "BLOCK", 411 * 30)  # 14 blocks of rows
    item, similarity = similar_by_content(matrix, most=most)
    wanted, value = neighbours_plainly(matrix, most)
    assert item.dtype == np.int64 and similarity.dtype == np.float32
    assert np.allclose(similarity, value, atol=2e-6)
    swapped = item != wanted
    assert swapped.mean() < 0.01  # near ties at the edge of a millionth
    assert (item[[0, *range(401, 411)]] == 0).all()


def test_equal_neighbours_come_by_index_and_missing_ones_are_zero() -> None:
    frame = pl.DataFrame(
        {"item_id": [str(k) for k in range(90)], "categories": ["A", "B", "C"] * 30}
    )
    matrix = fit(frame).by_index(frame, 90)
    item, similarity = similar_by_content(matrix, rows=np.array([4, 90, 0]), most=40)
    assert item[0].tolist() == [k for k in range(1, 91, 3) if k != 4] + [0] * 11
    assert item[1].tolist() == [*range(3, 90, 3)] + [0] * 11
    assert similarity[0].tolist() == [1] * 29 + [0] * 11
    assert not item[2].any() and not similarity[2].any()


def test_without_any_content_nothing_is_near() -> None:
    item, similarity = similar_by_content(sp.csr_array((5, 0), dtype=np.float32), most=3)
    assert item.shape == similarity.shape == (5, 3)
    assert not item.any() and not similarity.any()
