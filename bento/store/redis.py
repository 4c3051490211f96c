"""Not there yet."""

from bento.store.base import Keep, Store


class RedisStore(Store):
    def __init__(self, url: str, keep: Keep) -> None:
        raise NotImplementedError
