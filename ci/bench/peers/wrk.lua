-- For wrk: an optional depth of pipelining, and the result as one line that a program can read.
-- wrk ... -s wrk.lua URL -- DEPTH

function init(args)
  local depth = tonumber(args[1] or "1")
  -- wrk formats its request once, after this, and counts how many requests are in it. Overriding `wrk.format` instead
  -- of `request` keeps Lua out of the measured loop.
  local format = wrk.format
  wrk.format = function(...)
    return string.rep(format(...), depth)
  end
end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    "exovm-bench: requests %d duration_us %d p50_us %d p99_us %d connect %d read %d write %d timeout %d status %d\n",
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.connect, errors.read, errors.write, errors.timeout, errors.status))
end
