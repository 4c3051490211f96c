"""Which column of a file is probably meant where its name is another: userId, movieId, ts.

Only ever a hint in an error or a warning: no column is read under another name.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

# spelled without case, spaces and underscores
_ALIASES = {
    "user_id": "uid user customer customerid client clientid visitor visitorid member memberid "
    "account accountid reviewer reviewerid person personid session sessionid id",
    "item_id": "iid item product productid sku asin isbn article articleid movie movieid film "
    "filmid book bookid song songid track trackid video videoid business businessid stockcode "
    "content contentid recipe recipeid course courseid game gameid id",
    "timestamp": "ts time date datetime unixtime eventtime created createdat reviewtime "
    "unixreviewtime when invoicedate timestampms",
    "rating": "score star stars rate overall",
    "event": "eventtype eventname action behavior behaviour type interaction interactiontype",
    "title": "name itemname productname itemtitle producttitle movietitle",
    "categories": "category genre genres tag tags categoryname categorycode",
}


def likely(column: str, names: Iterable[str]) -> str | None:
    """The one of `names` that probably holds what `column` should, if any."""
    plain = {_plain(name): name for name in names}
    for spelling in (_plain(column), *_ALIASES.get(column, "").split()):
        if spelling in plain:
            return plain[spelling]
    close = get_close_matches(_plain(column), plain, n=1, cutoff=0.8)
    return plain[close[0]] if close else None


def renames(missing: Sequence[str], names: Sequence[str]) -> list[str]:
    """ "rename userId to user_id" for each missing column that has a likely one."""
    left = list(names)
    said = []
    for column in missing:
        if (found := likely(column, left)) is not None:
            left.remove(found)
            said.append(f"rename {found} to {column}")
    return said


def _plain(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())
