-- wrk's requests. `post <template>`: the template's bytes with an id that was never used in place of every "@@", and
-- with the time in place of a "##".
-- `get <paths>`: the paths of a file in turn. The last line of the output is what was counted, as JSON.
local requests, parts, prefix, sent, now = {}, {}, "", 0, 0

function init(args)
  local file = assert(io.open(args[2], "rb"))
  local text = file:read("*a")
  file:close()
  prefix = args[3]
  if args[1] == "get" then
    for path in text:gmatch("[^\n]+") do
      requests[#requests + 1] = wrk.format("GET", path)
    end
    return
  end
  local from = 1
  while true do
    local at, till = text:find("@@", from, true)
    local part = text:sub(from, (at or 0) - 1)
    local time = part:find("##", 1, true)
    if time then
      parts[#parts + 1] = part:sub(1, time - 1)
      now = #parts + 1
      parts[now] = ""
      part = part:sub(time + 2)
    end
    parts[#parts + 1] = part
    if not at then
      break
    end
    parts[#parts + 1] = ""
    from = till + 1
  end
end

function request()
  sent = sent + 1
  if #requests > 0 then
    return requests[sent % #requests + 1]
  end
  for i = 2, #parts, 2 do
    parts[i] = i == now and os.date("!%Y-%m-%dT%H:%M:%SZ") or prefix .. "-" .. sent .. "-" .. i
  end
  return wrk.format("POST", nil, nil, table.concat(parts))
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '{"requests":%d,"seconds":%.6f,"refused":%d,"broken":%d,"p50_ms":%.3f,"p99_ms":%.3f}\n',
    summary.requests, summary.duration / 1e6, errors.status, errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
