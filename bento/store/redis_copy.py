"""Backup and restore of the Redis store: its keys as DUMP gives them, all of one state.

The server stands still while a script collects them. A restore puts them under other names
first, and one script lets them take the old ones' place.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
from redis import Redis

from bento.store import copies
from bento.store import redis_keys as keys
from bento.store.redis_keys import PREFIX
from bento.store.redis_reading import WAIT_S, RedisReader

KIND = "redis"
STAGING = "recserve-restore:"
CHUNK = 500
Record = tuple[bytes, int, bytes]  # key without prefix, unix milliseconds it expires at or 0, DUMP
_SWAP = f"""
local function all(pattern)
  local found, cursor = {{}}, '0'
  repeat
    local some = redis.call('SCAN', cursor, 'MATCH', pattern, 'COUNT', 1000)
    cursor = some[1]
    for _, key in ipairs(some[2]) do found[#found + 1] = key end
  until cursor == '0'
  return found
end
for _, key in ipairs(all('{PREFIX}*')) do redis.call('UNLINK', key) end
for _, key in ipairs(all('{STAGING}*')) do
  if redis.call('EXISTS', key) == 1 then
    redis.call('RENAME', key, '{PREFIX}' .. string.sub(key, {len(STAGING) + 1}))
  end
end
return redis.status_reply('OK')
"""


def backup(url: str, to: Path) -> int:
    """Write a backup of the store; the number of events in it. Raises Unavailable."""
    with closing(RedisReader(url)) as reader:
        events, *found = reader.ask("eval", keys.script("dump"), 0, reader.identity)
    now = int(time.time() * 1000)

    def fill(out: copies.Out) -> None:
        for key, left, content in zip(found[::3], found[1::3], found[2::3], strict=True):
            out.write(packed((key[len(PREFIX) :], now + left if left > 0 else 0, content)))

    copies.write(to, KIND, fill)
    return int(events)


def restore(url: str, made: Path, *, force: bool) -> int:
    """Put what `made` holds in the place of the store; the number of events in it. Raises
    DataError for a backup that is not whole and, without `force`, for a store that holds
    events: nothing is changed then."""
    place = keys.where(url)
    client = Redis.from_url(url, socket_timeout=WAIT_S, socket_connect_timeout=5)
    with copies.opened(made, KIND) as copy, closing(client):
        try:
            if (identity := client.get(f"{PREFIX}schema")) is not None:
                keys.salt_of(_text(identity), place)
            if not force and any(True for _ in client.scan_iter(f"{PREFIX}events:*", CHUNK)):
                raise copies.refuse_full(place)
            try:
                _clear(client)
                for records in _chunks(copy):
                    _stage(client, records)
                _refuse_other_version(client, made)
                client.eval(_SWAP, 0)
            finally:
                _clear(client)
            users = client.scan_iter(f"{PREFIX}events:*", CHUNK)
            return sum(int(client.zcard(user)) for user in set(users))
        except keys.FAILURES as error:
            raise keys.unavailable(place, error) from error


def packed(record: Record) -> bytes:
    data = msgspec.msgpack.encode(record)
    return len(data).to_bytes(8, "little") + data


def _chunks(copy: copies.Copy) -> Iterator[list[Record]]:
    decoder = msgspec.msgpack.Decoder(Record)
    records: list[Record] = []
    while size := copy.read(8):
        records.append(decoder.decode(copy.read(int.from_bytes(size, "little"))))
        if len(records) == CHUNK:
            yield records
            records = []
    yield records


def _stage(client: Redis, records: list[Record]) -> None:
    with client.pipeline(transaction=False) as pipe:
        for key, expires, content in records:
            name = STAGING.encode() + key
            pipe.restore(name, expires, content, replace=True, absttl=expires > 0)
        pipe.execute()


def _refuse_other_version(client: Redis, made: Path) -> None:
    identity = client.get(f"{STAGING}schema")
    keys.salt_of(_text(identity), str(made))


def _clear(client: Redis) -> None:
    """What a restore that did not end has left."""
    for key in client.scan_iter(f"{STAGING}*", CHUNK):
        client.unlink(key)


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else ""
