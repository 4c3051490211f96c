"""Not there yet."""

from bento.store.base import Reader


class RedisReader(Reader):
    def __init__(self, url: str) -> None:
        raise NotImplementedError
