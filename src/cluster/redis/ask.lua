-- One call of the engine: does what it is asked, and answers with all there is at this moment, by the clock of the
-- instance. All of it is in one hash, so that nothing of it can be lost alone.
--
-- KEYS[1]: the hash. ARGV: a random name, the channel of hints, the record that the node has, what it asks, and
--   read
--   try      the rights for what is asked later
--   renew    incarnation, lease, time to live in microseconds, 1 for a first one
--   release  incarnation
--   replace  view to be replaced, view, instance, record
local key = KEYS[1]
local fresh, hints, known, what = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

local replication = redis.call('INFO', 'replication')
if not string.find(replication, 'role:master', 1, true) then
  return redis.error_reply('READONLY this is a replica')
end
local born = redis.call('HGET', key, 'born')
if not born then
  born = fresh
  redis.call('HSET', key, 'born', born)
end
-- The process, its history (another one where a replica takes over), and the hash.
local process = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
local history = string.match(replication, 'master_replid:(%x+)')
local instance = string.sub(process, 1, 16) .. '-' .. string.sub(history, 1, 16) .. '-' .. born

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local fields = redis.call('HGETALL', key)
local view, leases = '', {}
for i = 1, #fields, 2 do
  local name, value = fields[i], fields[i + 1]
  if name == 'view' then
    view = value
  elseif string.sub(name, 1, 6) == 'lease:' then
    if tonumber(string.sub(value, 1, 16)) > now then
      leases[name] = string.sub(value, 17)
    else
      redis.call('HDEL', key, name)
    end
  end
end

local done = 1
if what == 'renew' then
  local name = 'lease:' .. ARGV[5]
  if leases[name] or ARGV[8] == '1' then
    leases[name] = ARGV[6]
    redis.call('HSET', key, name, string.format('%016.0f', now + ARGV[7]) .. ARGV[6])
  else
    done = 0
  end
elseif what == 'try' then
  redis.call('HSET', key, 'tried', '')
  redis.call('HDEL', key, 'tried')
elseif what == 'release' then
  leases['lease:' .. ARGV[5]] = nil
  redis.call('HDEL', key, 'lease:' .. ARGV[5])
elseif what == 'replace' then
  if view == ARGV[5] and instance == ARGV[7] then
    view = ARGV[6]
    -- By its name nodes know whether they have the record already.
    redis.call('HSET', key, 'view', view, 'named', instance .. '/' .. view, 'record', ARGV[8])
    redis.call('PUBLISH', hints, '')
  else
    done = 0
  end
end

local named = redis.call('HGET', key, 'named') or ''
local record = ''
if named ~= known then
  record = redis.call('HGET', key, 'record') or ''
end
local living = {}
for _, lease in pairs(leases) do
  living[#living + 1] = lease
end
return { done, instance, named, record, living }
