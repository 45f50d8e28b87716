// The page at `/`: it asks the gateway once a second how the network is and shows what it hears.
// Nothing is kept but what happened since the page was opened.
"use strict";

const EVERY_MS = 1000;
const HISTORY_S = 300;
const CHART_POINTS = 120;
const EVENTS_MAX = 200;
const FOUND_AT_ONCE = 50;
/** Of a value that is no text. */
const SHOWN_BYTES_MAX = 4096;

const at = (id) => document.getElementById(id);

/** An element with properties and children, which are elements or texts. */
function make(name, properties, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties ?? {})) {
    if (key.startsWith("aria-") || key === "role") element.setAttribute(key, value);
    else element[key] = value;
  }
  element.append(...children);
  return element;
}

/** Shows children in a list, touching only those that changed. */
function show(list, children) {
  children.forEach((child, index) => {
    const old = list.children[index];
    if (!old) list.append(child);
    else if (!old.isEqualNode(child)) old.replaceWith(child);
  });
  while (list.children.length > children.length) list.lastElementChild.remove();
}

// --- asking

let token = sessionStorage.getItem("token");

async function ask(path, options = {}) {
  const headers = new Headers(options.headers);
  if (token) headers.set("Authorization", `Bearer ${token}`);
  const signal = AbortSignal.timeout(15000);
  const answer = await fetch(path, { ...options, headers, signal, cache: "no-store" });
  if (answer.status === 401) at("token-form").hidden = false;
  return answer;
}

async function document_of(path) {
  const answer = await ask(path);
  if (!answer.ok) throw Object.assign(new Error(await problem(answer)), { status: answer.status });
  return answer.json();
}

/** What an answer that is no success says, in a line. */
async function problem(answer) {
  try {
    const document = await answer.json();
    return document.detail ?? document.error ?? answer.statusText;
  } catch {
    return `${answer.status} ${answer.statusText}`;
  }
}

at("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  token = at("token").value.trim();
  sessionStorage.setItem("token", token);
  at("token-form").hidden = true;
  at("token").value = "";
  look();
});

// --- how the network is

const number = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const count = (value) => (value == null ? "–" : number.format(value));

function bytes(value) {
  if (value == null) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) { value /= 1024; unit += 1; }
  return `${unit && value < 10 ? value.toFixed(1) : Math.round(value)} ${units[unit]}`;
}

function time(us) {
  if (us == null) return "–";
  if (us < 1000) return `${Math.round(us)} µs`;
  if (us < 1e6) return `${(us / 1000).toPrecision(us < 10000 ? 2 : 3)} ms`;
  return `${(us / 1e6).toPrecision(3)} s`;
}

function age(ms) {
  if (ms == null) return "–";
  const s = Math.floor(ms / 1000);
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 86400) return `${Math.floor(s / 3600)} h`;
  return `${Math.floor(s / 86400)} d`;
}

function tile(value, label, warns = false) {
  return make("li", { className: warns ? "warn" : "" }, make("b", {}, value), make("span", { className: "quiet" }, label));
}

function show_state(report) {
  at("network").textContent =
    `network ${report.network?.slice(0, 8) ?? "unknown"} · server ${report.server.address} ${report.server.reachable ? "is up" : "does not answer"}`;
  const pill = at("state");
  const text = report.available ? "available" : "not available";
  if (pill.textContent !== text) pill.textContent = text;
  pill.className = `pill ${report.available ? "good" : "bad"}`;
  const shards = report.groups.filter((group) => group.group !== 0);
  const live = report.nodes.filter((node) => node.reachable).length;
  const keys = shards.reduce((sum, shard) => sum + (shard.keys ?? 0), 0);
  const data = shards.reduce((sum, shard) => sum + (shard.data_bytes ?? 0), 0);
  show(at("tiles"), [
    tile(`${live} of ${report.nodes.length}`, "nodes answer"),
    tile(report.coordinator?.name ?? "none", report.coordinator ? `coordinator in term ${report.coordinator.term}` : "coordinator"),
    tile(count(report.may_fail), report.may_fail === 1 ? "more node may fail" : "more nodes may fail", report.may_fail === 0 && report.nodes.length > 1),
    tile(count(shards.length), shards.length === 1 ? "shard" : "shards"),
    tile(count(keys), `${keys === 1 ? "key" : "keys"}, ${bytes(data)}`),
    tile(`${count(writes_a_second(report))}/s`, "writes in the network"),
  ]);
  at("warnings").hidden = report.warnings.length === 0;
  show(at("warnings"), report.warnings.map((warning) => make("li", {}, warning)));
  show(at("nodes"), report.nodes.map(node_card));
  show(at("shards"), shards.map((shard) => make("li",
    { className: shard.primary ? "" : "bad", title: `term ${shard.term ?? "–"}, revision ${shard.revision ?? "–"}, voters ${shard.voters.map((voter) => voter.name).join(", ")}` },
    make("span", {}, `shard ${shard.group}`), make("b", {}, shard.primary ?? "no primary"))));
}

function node_card(node) {
  const leads = node.role === "coordinator" && node.reachable;
  const state = node.reachable ? (leads ? "coordinator" : node.state) : "does not answer";
  const rows = [
    ["address", node.address],
    ...(node.region ? [["region", node.region]] : []),
    ["primary of", node.primaries.length > 6 ? `${node.primaries.length} shards` : node.primaries.join(", ") || "–"],
    ["behind", node.applied_lag == null ? "–" : `${count(node.applied_lag)} ${node.applied_lag === 1 ? "entry" : "entries"}`],
    ["sync", time(node.fsync_us)],
    ["log", bytes(node.log_bytes)],
    ["up", age(node.uptime_ms)],
  ];
  return make("li", { className: node.reachable ? (leads ? "leads" : "") : "gone" },
    make("div", { className: "head" }, make("b", {}, node.name), make("span", { className: "tag" }, state)),
    make("dl", {}, ...rows.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)])));
}

let last_revisions = null;

/** By how much the revisions of the shards grew. */
function writes_a_second(report) {
  const now = performance.now();
  const revisions = report.groups.filter((group) => group.group !== 0 && group.revision != null)
    .reduce((sum, group) => sum + group.revision, 0);
  const before = last_revisions;
  last_revisions = { now, revisions };
  if (!before || revisions < before.revisions) return 0;
  return Math.round((revisions - before.revisions) / ((now - before.now) / 1000));
}

// --- what happened

const samples = [];
let last_report = null;

function happened(text, bad = false) {
  const now = new Date();
  const item = make("li", {},
    make("time", { dateTime: now.toISOString() }, now.toLocaleTimeString()),
    make("span", { className: bad ? "bad" : "" }, text));
  at("events").prepend(item);
  while (at("events").children.length > EVENTS_MAX) at("events").lastElementChild.remove();
}

function compare(report) {
  const before = last_report;
  last_report = report;
  if (!before) return happened(`connected; ${report.coordinator?.name ?? "nobody"} is the coordinator`);
  if (report.coordinator && (report.coordinator.name !== before.coordinator?.name || report.coordinator.term !== before.coordinator?.term)) {
    happened(`${report.coordinator.name} was elected coordinator, in term ${report.coordinator.term}`);
  }
  if (!report.coordinator && before.coordinator) happened("there is no coordinator", true);
  if (report.available !== before.available) {
    happened(report.available ? "all keys are available again" : "a group has no majority", !report.available);
  }
  if (report.server.reachable !== before.server.reachable) {
    happened(report.server.reachable ? "the server answers again" : "the server does not answer", !report.server.reachable);
  }
  const known = new Map(before.nodes.map((node) => [node.id, node]));
  for (const node of report.nodes) {
    const old = known.get(node.id);
    known.delete(node.id);
    if (!old) happened(`${node.name} has joined`);
    else if (old.reachable && !node.reachable) happened(`${node.name} does not answer`, true);
    else if (!old.reachable && node.reachable) happened(`${node.name} answers again`);
  }
  for (const gone of known.values()) happened(`${gone.name} was removed`);
  const shards = new Map(before.groups.map((group) => [group.group, group]));
  const moved = report.groups.filter((group) => group.group !== 0 && group.primary && shards.has(group.group) && shards.get(group.group).primary !== group.primary);
  if (moved.length > 3) happened(`${moved.length} shards have other primaries`);
  else for (const group of moved) happened(`${group.primary} is the primary of shard ${group.group}`);
}

function remember(report) {
  const now = Date.now();
  const states = new Map(report.nodes.map((node) => [node.name, !node.reachable ? "gone" : node.role === "coordinator" ? "leads" : "lives"]));
  samples.push({ now, states });
  while (samples.length && now - samples[0].now > HISTORY_S * 1000) samples.shift();
  const names = [...new Set(samples.flatMap((sample) => [...sample.states.keys()]))];
  names.sort((one, other) => one.localeCompare(other, "en", { numeric: true }));
  show(at("lanes"), names.map((name) => make("div", { className: "lane" }, make("span", { className: "name", title: name }, name), bar(name, now))));
  at("lanes").setAttribute("aria-label", names.map((name) => `${name}: ${{ gone: "does not answer", leads: "coordinator", lives: "live" }[states.get(name)] ?? "removed"}`).join("; "));
}

function bar(name, now) {
  const spans = [];
  for (const sample of samples) {
    const state = sample.states.get(name);
    const last = spans.at(-1);
    if (last) last.until = sample.now;
    if (state && last?.state !== state) spans.push({ state, from: sample.now, until: sample.now });
  }
  const share = (moment) => 100 * Math.max(0, 1 - (now - moment) / (HISTORY_S * 1000));
  const parts = spans.map(({ state, from, until }) => {
    const part = make("i", { className: state });
    part.style.left = `${share(from).toFixed(2)}%`;
    part.style.width = `${Math.max(0.3, share(until) - share(from)).toFixed(2)}%`;
    return part;
  });
  return make("div", { className: "bar" }, ...parts);
}

// --- traffic

const points = [];
let last_traffic = null;

/** What came since the last look: how many a second, and how long so many of them took. */
function traffic_since(traffic) {
  const now = performance.now();
  const buckets = traffic.bounds_us.concat(Infinity).map(() => 0);
  // What this page asks by itself is no traffic.
  for (const [kind, entry] of Object.entries(traffic.kinds)) {
    if (["status", "page", "metrics", "health"].includes(kind)) continue;
    entry.buckets.forEach((value, index) => { buckets[index] += value; });
  }
  const before = last_traffic;
  last_traffic = { now, buckets };
  if (!before) return null;
  const grown = buckets.map((value, index) => Math.max(0, value - before.buckets[index]));
  const total = grown.reduce((sum, value) => sum + value, 0);
  const quantile = (share) => {
    if (total === 0) return null;
    let below = 0;
    for (const [index, value] of grown.entries()) {
      if (below + value >= share * total && value > 0) {
        const low = index === 0 ? 0 : traffic.bounds_us[index - 1];
        const high = traffic.bounds_us[index] ?? low * 2;
        return low + (high - low) * ((share * total - below) / value);
      }
      below += value;
    }
    return null;
  };
  return { rate: total / ((now - before.now) / 1000), median: quantile(0.5), tail: quantile(0.99) };
}

/** From zero to a round number: where a value is between them, and what is written beside the chart. */
function linear(values, unit) {
  const most = Math.max(1, ...values);
  const power = 10 ** Math.floor(Math.log10(most));
  const top = power * [1, 2, 5, 10].find((step) => step * power >= most);
  return { place: (value) => value / top, marks: [0, 0.5, 1].map((share) => [share, `${number.format(share * top)}${unit}`]) };
}

/** Times by powers of ten, so that one that is long does not hide the others. */
function logarithmic(values_us) {
  const some = values_us.filter((value) => value > 0);
  const least = Math.floor(Math.log10(Math.min(1e3, ...some)));
  const most = Math.max(least + 2, Math.ceil(Math.log10(Math.max(1e4, ...some))));
  const exponents = Array.from({ length: most - least + 1 }, (_, index) => least + index);
  return {
    place: (value) => Math.max(0, (Math.log10(Math.max(value, 1)) - least) / (most - least)),
    marks: exponents.map((exponent) => [(exponent - least) / (most - least), round_time(10 ** exponent)]),
  };
}

const round_time = (us) => us < 1000 ? `${us} µs` : us < 1e6 ? `${us / 1000} ms` : `${us / 1e6} s`;

const CHART = { width: 600, height: 140, margin: 4 };

/** How far down a chart a share of it is. */
const down = (share) => CHART.margin + (1 - share) * (CHART.height - 2 * CHART.margin);

/** A line of a chart; nothing where there is no value. */
function line(values, scale, area = false) {
  let path = "", open = false, begun = 0;
  const x = (index) => ((index + CHART_POINTS - values.length) / (CHART_POINTS - 1)) * CHART.width;
  const close = () => { if (open && area) path += `V${down(0)}H${x(begun).toFixed(1)}Z`; };
  values.forEach((value, index) => {
    if (value == null) {
      close();
      open = false;
      return;
    }
    const y = down(scale.place(value)).toFixed(1);
    if (!open) { begun = index; path += area ? `M${x(index).toFixed(1)},${down(0)}V${y}` : `M${x(index).toFixed(1)},${y}`; }
    path += `L${x(index).toFixed(1)},${y}`;
    open = true;
  });
  close();
  return path;
}

function draw(chart, scale, lines, label) {
  const rules = scale.marks.map(([share]) => ["rule", `M0,${down(share).toFixed(1)}H${CHART.width}`]);
  chart.replaceChildren(...[...rules, ...lines].map(([kind, path]) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", "path");
    element.setAttribute("class", kind);
    element.setAttribute("d", path);
    return element;
  }));
  chart.setAttribute("aria-label", label);
  show(chart.parentElement.querySelector(".scale"), scale.marks.map(([share, text]) => {
    const mark = make("span", {}, text);
    mark.style.top = `${((down(share) / CHART.height) * 8.75).toFixed(2)}rem`;
    return mark;
  }));
}

function show_traffic(traffic) {
  const point = traffic_since(traffic);
  if (!point) return;
  points.push(point);
  while (points.length > CHART_POINTS) points.shift();
  const rates = points.map((it) => it.rate);
  const rate_scale = linear(rates, "/s");
  at("rate-now").textContent = `${count(point.rate)}/s`;
  draw(at("rate"), rate_scale, [["area", line(rates, rate_scale, true)], ["first", line(rates, rate_scale)]],
    `${count(point.rate)} requests a second; at most ${count(Math.max(...rates))} in the last two minutes`);
  const [medians, tails] = [points.map((it) => it.median), points.map((it) => it.tail)];
  const time_scale = logarithmic([...medians, ...tails]);
  const last = points.findLast((it) => it.tail != null);
  at("latency-now").textContent = last ? `${time(last.median)} · ${time(last.tail)}` : "";
  draw(at("latency"), time_scale, [["second", line(tails, time_scale)], ["first", line(medians, time_scale)]],
    last ? `median ${time(last.median)}, 99 of 100 requests within ${time(last.tail)}` : "no requests yet");
}

// --- looking

let looking = false;

async function look() {
  if (looking || document.hidden) return;
  looking = true;
  try {
    const [report, traffic] = await Promise.all([document_of("/v1/status"), document_of("/v1/traffic")]);
    compare(report);
    show_state(report);
    remember(report);
    show_traffic(traffic);
  } catch (error) {
    const pill = at("state");
    const text = error.status === 401 ? "a token is needed" : error.status ? "gateway refuses" : "gateway does not answer";
    if (pill.textContent !== text) {
      pill.textContent = text;
      pill.className = "pill bad";
      happened(`${text}: ${error.message}`, true);
    }
  } finally {
    looking = false;
  }
}

setInterval(look, EVERY_MS);
document.addEventListener("visibilitychange", look);
look();

// --- keys

let loaded = null;

/** A key as it stands in a path. */
function path_of(key) {
  const encoded = [...key].map((byte) => /[A-Za-z0-9_.~-]/.test(String.fromCharCode(byte)) ? String.fromCharCode(byte) : `%${byte.toString(16).padStart(2, "0")}`).join("");
  // A part of a path that is one or two dots means another path.
  return `/v1/kv/${encoded.replaceAll(/^\.{1,2}$/g, (dots) => "%2e".repeat(dots.length))}`;
}

const text_to_bytes = (text) => new TextEncoder().encode(text);

function from_base64(text) {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
}

function as_text(data) {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(data);
  } catch {
    return null;
  }
}

const escaped = (data) => [...data].map((byte) => byte >= 32 && byte < 127 ? String.fromCharCode(byte) : `\\x${byte.toString(16).padStart(2, "0")}`).join("");

/** A key as people see it, in one line: a field would drop what breaks it. */
function name_of(key) {
  const text = as_text(key);
  return text === null || /[\x00-\x1f\x7f]/.test(text) ? escaped(key) : text;
}

/** A value that can be edited; a field would make one line feed of a carriage return. */
function editable(value) {
  const text = as_text(value);
  return text === null || /[\x00\r]/.test(text) ? null : text;
}

function say(text, bad = false) {
  at("said").textContent = text;
  at("said").className = bad ? "bad" : "";
}

/** The key in the editor, as bytes. */
function key_now() {
  const text = at("key").value;
  return loaded && loaded.shown === text ? loaded.key : text_to_bytes(text);
}

function fill(key, value, about, etag) {
  const shown = name_of(key);
  const text = value === null ? "" : editable(value);
  at("key").value = shown;
  at("value").value = text ?? escaped(value.subarray(0, SHOWN_BYTES_MAX));
  at("value").readOnly = text === null;
  at("put").disabled = text === null;
  const part = value?.length > SHOWN_BYTES_MAX ? `, its first ${bytes(SHOWN_BYTES_MAX)} are shown` : "";
  at("about").textContent = text === null ? `${about}; it is no plain text: it cannot be edited here${part}` : about;
  loaded = { key, shown, etag };
  for (const button of at("found").querySelectorAll("button")) {
    button.setAttribute("aria-current", String(button.textContent === shown));
  }
}

const about_answer = (answer, length) =>
  `${bytes(length)}, revision ${answer.headers.get("Dkv-Revision")}, shard ${answer.headers.get("Dkv-Shard")}`;

async function get(key) {
  const answer = await ask(path_of(key));
  if (answer.status === 404) {
    fill(key, null, "there is no such key", null);
    return say("This key does not exist. Put makes it.");
  }
  if (!answer.ok) return say(await problem(answer), true);
  const value = new Uint8Array(await answer.arrayBuffer());
  fill(key, value, about_answer(answer, value.length), answer.headers.get("ETag"));
  say("");
}

async function put(key) {
  const value = text_to_bytes(at("value").value);
  const headers = {};
  // Whoever edits what was read writes over that and nothing else.
  if (loaded && loaded.shown === at("key").value) {
    if (loaded.etag) headers["If-Match"] = loaded.etag;
    else headers["If-None-Match"] = "*";
  }
  const answer = await ask(path_of(key), { method: "PUT", headers, body: value });
  if (answer.status === 412) return say("Somebody else has written this key meanwhile. Get shows what is there.", true);
  if (!answer.ok) return say(await problem(answer), true);
  fill(key, value, about_answer(answer, value.length), answer.headers.get("ETag"));
  say(`Written at revision ${answer.headers.get("Dkv-Revision")}.`);
  await list();
}

async function remove(key) {
  const headers = loaded?.etag && loaded.shown === at("key").value ? { "If-Match": loaded.etag } : {};
  const answer = await ask(path_of(key), { method: "DELETE", headers });
  if (answer.status === 412) return say("Somebody else has written this key meanwhile. Get shows what is there.", true);
  if (!answer.ok) return say(await problem(answer), true);
  fill(key, null, "deleted", null);
  say("Deleted.");
  await list();
}

let next = null;

async function list(target) {
  const more = target !== undefined;
  const prefix = [...text_to_bytes(at("prefix").value)].map((byte) => `%${byte.toString(16).padStart(2, "0")}`).join("");
  const page = await document_of(target ?? `/v1/kv?values=false&limit=${FOUND_AT_ONCE}&prefix=${prefix}`);
  if (!more) at("found").replaceChildren();
  for (const pair of page.pairs) {
    const key = pair.key === undefined ? from_base64(pair.key_base64) : text_to_bytes(pair.key);
    const button = make("button", { type: "button", "aria-current": "false" }, name_of(key));
    button.addEventListener("click", () => busy(() => get(key)));
    at("found").append(make("li", {}, button));
  }
  next = page.next;
  at("more").hidden = next === null;
  at("found-none").hidden = at("found").children.length > 0;
}

/** Does something, and says what went wrong. */
async function busy(work) {
  at("editor").setAttribute("aria-busy", "true");
  try {
    await work();
  } catch (error) {
    say(error.message, true);
  } finally {
    at("editor").removeAttribute("aria-busy");
  }
}

/** The same with the key of the editor, which may not be empty. */
const with_key = (work) => () => {
  if (at("key").reportValidity()) busy(() => work(key_now()));
};

at("find").addEventListener("submit", (event) => { event.preventDefault(); busy(() => list()); });
at("more").addEventListener("click", () => busy(() => list(next)));
at("editor").addEventListener("submit", (event) => { event.preventDefault(); busy(() => put(key_now())); });
at("get").addEventListener("click", with_key(get));
at("delete").addEventListener("click", with_key(() => {
  at("sure-title").textContent = `Delete ${at("key").value} for good?`;
  at("sure").returnValue = "no";
  at("sure").showModal();
}));
at("sure").addEventListener("close", () => {
  if (at("sure").returnValue === "yes") busy(() => remove(key_now()));
});
at("new").addEventListener("click", () => {
  loaded = null;
  at("editor").reset();
  at("value").readOnly = at("put").disabled = false;
  at("about").textContent = "";
  say("");
  at("key").focus();
});
busy(() => list());
