"""What runs inside Redis, so that it is done whole or not at all.

The keys of a chord are Celery's, and workers of both kinds may count the same one: `.j` holds its parts by their index,
`.s` its size, `.t` what is to be added to that, `.d` which parts were counted, `.c` who sends the body.
"""

import hashlib
from typing import Final

import attrs

#: a result's key, and the channel on which it is announced, begin so
RESULT_PREFIX: Final = "celery-task-meta-"
#: keys of groups and chords begin so
GROUP_PREFIX: Final = "celery-taskset-meta-"


@attrs.frozen
class Script:
    """A script, and the name by which Redis remembers it."""

    text: str
    sha: str = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "sha", hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest())


#: KEYS: one for each result. ARGV: the seconds that they last (0: for ever), then each result.
#: A task that has succeeded has its result: no later run of it replaces that.
#: Returns for each result the empty text, or why it was not taken.
STORE: Final = Script("""
local seconds = ARGV[1]
local refusals = {}
for at, key in ipairs(KEYS) do
    local meta = ARGV[at + 1]
    local found = redis.pcall('GETRANGE', key, 0, 23)
    local refusal = ''
    if type(found) == 'table' then
        refusal = found.err
    elseif not string.find(found, '"status": ?"SUCCESS"') then
        local kept
        if seconds == '0' then
            kept = redis.pcall('SET', key, meta)
        else
            kept = redis.pcall('SET', key, meta, 'EX', seconds)
        end
        if not kept.err then
            kept = redis.pcall('PUBLISH', key, meta)
        end
        if type(kept) == 'table' and kept.err then
            refusal = kept.err
        end
    end
    refusals[at] = refusal
end
return refusals
""")

#: KEYS: .j .t .s .d .c of the chord. ARGV: the part's name, the part, its index, the seconds that the keys last (0: for
#: ever), who sends the body if this part is the last one, the milliseconds that it has for that.
#: Returns 0: parts are missing; 1: send the body; 2: another worker sends it, and the milliseconds that it has left; 3:
#: the body has been sent.
COUNT: Final = Script("""
local parts, added, size, counted, sender = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local name, part, index, seconds, me, lease = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5], ARGV[6]
local who = redis.call('GET', sender)
if who == 'done' then
    return {3, 0}
end
if redis.call('SADD', counted, name) == 1 then
    redis.call('ZADD', parts, index, part)
end
if seconds > 0 then
    for _, key in ipairs({parts, added, size, counted}) do
        redis.call('EXPIRE', key, seconds)
    end
end
local wanted = redis.call('GET', size)
if not wanted or redis.call('ZCARD', parts) ~= tonumber(wanted) + tonumber(redis.call('GET', added) or 0) then
    return {0, 0}
end
if who and who ~= me then
    return {2, math.max(redis.call('PTTL', sender), 0)}
end
redis.call('SET', sender, me, 'PX', lease)
return {1, 0}
""")

#: KEYS: .j of the chord, and the group's own, which tells how the parts are nested. Returns the parts in their order,
#: and how they are nested, or the empty text.
PARTS: Final = Script("""
return {redis.call('ZRANGE', KEYS[1], 0, -1), redis.call('GET', KEYS[2]) or ''}
""")

#: KEYS: .j .t .s .d .c of the chord. ARGV: who sent the body, the seconds for which it is remembered that it was sent.
CLOSE: Final = Script("""
if redis.call('GET', KEYS[5]) == ARGV[1] then
    redis.call('DEL', KEYS[1], KEYS[2], KEYS[3], KEYS[4])
    redis.call('SET', KEYS[5], 'done', 'EX', ARGV[2])
    return 1
end
return 0
""")
