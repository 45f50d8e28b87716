// The overview: health, traffic and timeline of the network.
"use strict";

const STATES = {
  available: ["available", "good"], degraded: ["degraded", "warn"],
  unavailable: ["unavailable", "bad"], unknown: ["checking", ""],
};

function pill(text, kind) {
  const state = at("state");
  if (state.textContent !== text) state.textContent = text;
  state.className = `pill ${kind}`;
}

function banner(text, kind = "") {
  at("banner").hidden = !text;
  at("banner").className = `banner ${kind}`;
  // Screen readers announce it only when it changes.
  if (at("banner").textContent !== text) at("banner").textContent = text;
}

function tile(value, label, warns = false) {
  return make("li", { className: warns ? "warn" : "" }, make("b", {}, value), make("span", { className: "quiet" }, label));
}

const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1);

/** Shows the health, in the head of every view. */
function show_health({ health, report, at_ms, report_at_ms }) {
  const [text, kind] = STATES[health.state];
  pill(text, kind);
  document.title = health.state === "available" ? "dkv" : `dkv: ${text}`;
  const reasons = [...health.reasons];
  if (health.state !== "unavailable") banner("");
  else if (health.read_error) {
    reasons.shift();
    banner(`Strong reads fail: ${health.read_error}. Eventual reads and writes may still succeed.`);
  } else banner(`Some keys cannot be read or written: ${reasons.shift()}.`);
  at("reasons").hidden = reasons.length === 0;
  show(at("reasons"), reasons.map((reason) => make("li", {}, reason)));
  const late = report && at_ms - report_at_ms > 3000;
  at("as-of").textContent = late ? `nodes as of ${clock(report_at_ms)} UTC` : `${clock(at_ms)} UTC`;
  if (!report) return;
  at("network").textContent =
    `network ${report.network?.slice(0, 8) ?? "unknown"} · server ${report.server.address} ${report.server.reachable ? "answers" : "does not answer"}`;
}

function show_tiles(report, sample) {
  const shards = report.groups.filter((group) => group.group !== 0);
  const live = report.nodes.filter((node) => node.reachable).length;
  const keys = shards.reduce((sum, shard) => sum + (shard.keys ?? 0), 0);
  const data = shards.reduce((sum, shard) => sum + (shard.data_bytes ?? 0), 0);
  const lost = shards.filter((shard) => !shard.primary).length;
  const coordinator = report.coordinator?.reachable ? report.coordinator : null;
  show(at("tiles"), [
    tile(`${live} of ${report.nodes.length}`, "nodes answer", live < report.nodes.length),
    tile(coordinator?.name ?? "none", coordinator ? `coordinator in term ${coordinator.term}` : "coordinator", !coordinator),
    tile(count(report.may_fail), report.may_fail === 1 ? "more failure tolerated" : "more failures tolerated", !report.may_fail),
    tile(lost ? `${shards.length - lost} of ${shards.length}` : count(shards.length), lost ? "shards have a primary" : shards.length === 1 ? "shard" : "shards", lost > 0),
    tile(count(keys), `${keys === 1 ? "key" : "keys"}, ${bytes(data)}`),
    tile(sample.writes == null ? "–" : `${count(sample.writes)}/s`, "writes in the network"),
  ]);
}

// --- traffic

const failovers = () => [...past.events.values()].filter((event) => event.kind === "failover");

function show_traffic(time) {
  const samples = past.samples.filter((it) => it.at_ms >= time.from_ms);
  const last = samples.at(-1);
  if (!last) return;
  const marks = failovers().map((event) => event.at_ms).filter((at_ms) => at_ms >= time.from_ms);
  const of = (name) => samples.map((it) => [it.at_ms, it[name]]);
  const most = Math.max(0, ...samples.map((it) => it.rate));
  const rate_scale = linear([most], "/s");
  at("rate-now").textContent = `${count(last.rate)}/s`;
  const failed = samples.map((it) => [it.at_ms, it.failed > 0 ? it.failed : null]);
  draw(at("rate"), rate_scale, [["area", line(of("rate"), rate_scale, time, true)],
    ["first", line(of("rate"), rate_scale, time)], ["failed", line(failed, rate_scale, time)]], marks, time,
    `${count(last.rate)} requests per second; at most ${count(most)}; ${marks.length} failovers`);
  const times = samples.flatMap((it) => [it.p50_us, it.p99_us]);
  const time_scale = logarithmic(times);
  at("latency-now").textContent = last.p99_us == null ? "no requests" : `${duration(last.p50_us)} · ${duration(last.p99_us)}`;
  draw(at("latency"), time_scale, [["second", line(of("p99_us"), time_scale, time)],
    ["first", line(of("p50_us"), time_scale, time)]], marks, time,
    last.p99_us == null ? "no requests" : `p50 ${duration(last.p50_us)}, p99 ${duration(last.p99_us)}`);
}

// --- timeline

const STATE_NAMES = { gone: "does not answer", leads: "coordinator", lives: "live" };

function show_lanes(lanes, time) {
  const marks = failovers().filter((event) => event.at_ms >= time.from_ms);
  show(at("lanes"), lanes.map((lane) => make("div", { className: "lane" },
    make("span", { className: "name", title: lane.name }, lane.name), bar(lane.spans, marks, time))));
  at("lanes").setAttribute("aria-label", lanes.map((lane) => `${lane.name}: ${STATE_NAMES[lane.spans.at(-1)?.what] ?? "unknown"}`).join("; "));
}

function bar(spans, marks, time) {
  const share = (at_ms) => 100 * Math.max(0, time.share(at_ms));
  const parts = spans.filter((span) => span.until_ms >= time.from_ms).map(({ what, from_ms, until_ms }) => {
    const part = make("i", { className: what, title: `${STATE_NAMES[what]} from ${clock(from_ms)} to ${clock(until_ms)} UTC` });
    part.style.left = `${share(from_ms).toFixed(2)}%`;
    part.style.width = `${Math.max(0.4, share(until_ms) - share(from_ms)).toFixed(2)}%`;
    return part;
  });
  for (const event of marks) {
    const mark = make("i", { className: "mark", title: event.text });
    mark.style.left = `${share(event.at_ms).toFixed(2)}%`;
    parts.push(mark);
  }
  return make("div", { className: "bar" }, ...parts);
}

function show_events() {
  const events = [...past.events.values()].sort((one, other) => other.at_ms - one.at_ms || other.id - one.id);
  const day = new Date(past.now?.at_ms ?? 0).toISOString().slice(0, 10);
  show(at("events"), events.map((event) => {
    const when = new Date(event.at_ms).toISOString();
    const told = when.startsWith(day) ? when.slice(11, 19) : `${when.slice(5, 10)} ${when.slice(11, 19)}`;
    const text = make("span", { className: event.kind }, event.text);
    if (event.detail) text.append(make("small", {}, event.detail));
    return make("li", {}, make("time", { dateTime: when }, told), text);
  }));
}

function show_overview() {
  const now = past.now;
  if (!now) return;
  const time = shown_time(now.at_ms);
  if (now.report) show_tiles(now.report, past.samples.findLast((it) => it.writes != null) ?? {});
  draw_axes(time);
  show_traffic(time);
  show_lanes(now.lanes, time);
}

at("window").addEventListener("change", show_overview);
