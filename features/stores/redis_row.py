"""A row in Redis: a head, numbers, words; under a member's key lie one or two, the one that is seen and a hidden one.

The head says how long the row is, with which filling it came, when it was true and when it became known; the scripts
read it where the rows are. A row is hidden while its filling is not shown: the first key of a script says which is.
"""

import struct
from typing import Final

import numpy as np

from features.stores.packed import Batch, Schema, text

HEAD: Final = struct.Struct(">Iqqq16s")  # size of all of it, filling, event_timestamp, created, the schema's code
# Lua's numbers count microseconds exactly until the year 2255
_ROWS: Final = """
local shown = tonumber(redis.call('GET', KEYS[1]) or 0)
local function newer(row, other)
  local event, created = struct.unpack('>i8i8', row, 13)
  local its_event, its_created = struct.unpack('>i8i8', other, 13)
  return event > its_event or event == its_event and created >= its_created
end
local function seen_and_hidden(key)
  local value, at, seen, hidden = redis.call('GET', key) or '', 1, nil, nil
  while at <= #value do
    local size, filling = struct.unpack('>I4i8', value, at)
    local row = string.sub(value, at, at + size - 1)
    if filling > shown then hidden = row elseif not seen or newer(row, seen) then seen = row end
    at = at + size
  end
  return value, seen, hidden
end
"""
WRITE: Final = f"""{_ROWS}
for place = 2, #KEYS do
  local key, row = KEYS[place], ARGV[place]
  local _, seen, hidden = seen_and_hidden(key)
  local _, filling = struct.unpack('>I4i8', row)
  if not seen or newer(row, seen) then
    if filling > shown then hidden = row else seen = row end
    redis.call('SET', key, (seen or '') .. (hidden or ''), 'EX', ARGV[1])
  end
end
"""
TIDY: Final = f"""{_ROWS}
for place = 2, #KEYS do
  local key = KEYS[place]
  local value, seen, hidden = seen_and_hidden(key)
  local left = (seen or '') .. (hidden or '')
  if left ~= value then redis.call('SET', key, left, 'KEEPTTL') end
end
"""
SEEN: Final = f"""{_ROWS}
local keys = {{}}
for place = 2, #KEYS do
  local _, seen = seen_and_hidden(KEYS[place])
  if seen then keys[#keys + 1] = KEYS[place] end
end
return keys
"""


def packed_rows(schema: Schema, batch: Batch, filling: int) -> list[bytes]:
    """Pack rows: the head big-endian, so that the script reads it, then numbers, then words."""
    head = [("size", ">u4"), ("filling", ">i8"), ("event_timestamp", ">i8"), ("created", ">i8"), ("schema", "S16")]
    layout = np.dtype([*head, ("numbers", "<f8", (len(schema.numbers),))])
    words, width = [text(said).encode() for said in batch.words], layout.itemsize
    records = np.empty(len(batch.member_ids), layout)
    records["size"], records["filling"] = [width + len(said) for said in words], filling
    records["event_timestamp"], records["created"] = batch.event_timestamp, batch.created
    records["schema"], records["numbers"] = schema.code, batch.numbers
    packed = records.tobytes()
    return [packed[width * place : width * (place + 1)] + said for place, said in enumerate(words)]


def shown_row(value: bytes, shown: int) -> bytes | None:
    """Give the newest row that is shown, of those under a key."""
    found, of, at = None, (0, 0), 0
    while at < len(value):
        size, filling, event, created, _ = HEAD.unpack_from(value, at)
        if filling <= shown and (found is None or (event, created) >= of):
            found, of = value[at : at + size], (event, created)
        at += size
    return found
