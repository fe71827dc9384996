-- Requests to the tracking API for wrk, each of them different.
--
--   wrk ... -s tracking_api.lua http://HOST:PORT -- SCENARIO EXPERIMENT_ID FILE_OF_RUN_IDS
--
-- SCENARIO is log_batch (10 metrics, next run, next step), create_run or search_runs (20 newest
-- runs). Prints one JSON object at the end: times in microseconds, counts of requests and errors.

local thread_count = 0

function setup(thread)
  thread:set("thread_id", thread_count)
  thread_count = thread_count + 1
end

local function lines_of(file)
  local lines = {}
  for line in io.lines(file) do
    lines[#lines + 1] = line
  end
  return lines
end

local function metric(key, value, timestamp_ms, step)
  return string.format('{"key":"metric_%d","value":%.6f,"timestamp":%.0f,"step":%.0f}',
    key, value, timestamp_ms, step)
end

local bodies = {}

function bodies.log_batch(number)
  local metrics = {}
  for key = 0, 9 do
    metrics[#metrics + 1] = metric(key, number / (key + 1), start_ms + number, number)
  end
  return string.format('{"run_id":"%s","metrics":[%s]}',
    run_ids[number % #run_ids + 1], table.concat(metrics, ","))
end

function bodies.create_run(number)
  return string.format('{"experiment_id":"%s","run_name":"new-%.0f","start_time":%.0f,'
    .. '"tags":[{"key":"mlflow.user","value":"bench"}]}',
    experiment_id, number, start_ms + number)
end

function bodies.search_runs(number)
  return string.format('{"experiment_ids":["%s"],"max_results":20}', experiment_id)
end

local paths = {
  log_batch = "/api/2.0/mlflow/runs/log-batch",
  create_run = "/api/2.0/mlflow/runs/create",
  search_runs = "/api/2.0/mlflow/runs/search",
}

function init(args)
  scenario, experiment_id = args[1], args[2]
  run_ids = lines_of(args[3])
  start_ms = os.time() * 1000
  sent = 0
  wrk.headers["Content-Type"] = "application/json"
end

function request()
  -- Two threads: one takes the even numbers, the other the odd ones.
  local number = 2 * sent + thread_id
  sent = sent + 1
  return wrk.format("POST", paths[scenario], nil, bodies[scenario](number))
end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format('\n{"requests":%d,"duration_us":%d,"p50_us":%.0f,"p99_us":%.0f,'
    .. '"connect":%d,"read":%d,"write":%d,"timeout":%d,"status":%d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.connect, errors.read, errors.write, errors.timeout, errors.status))
end
