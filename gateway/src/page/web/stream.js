// The stream of news: the history first, then one message per sample. If the stream falls silent,
// the page shows the age of its data.
"use strict";

/** Silence after which the data is stale. The gateway sends a message per second. */
const STALE_MS = 3500;
const RECONNECT_MS = 1000;
const SAMPLES_MAX = 900;
const EVENTS_MAX = 200;

const past = { samples: [], events: new Map(), now: null };

let heard = null;
let listening = null;
let trouble = "";

function show_now() {
  show_health(past.now);
  show_overview();
  if (past.now.report) show_nodes(past.now.report);
}

/** Handles one server-sent event. */
function hear(text) {
  const data = event_field(text, "data");
  if (!data) return;
  const told = JSON.parse(data);
  if (event_field(text, "event") === "history") {
    past.samples = told.samples;
    past.events.clear();
  } else {
    past.samples.push(...told.samples.filter((it) => it.at_ms > (past.samples.at(-1)?.at_ms ?? 0)));
  }
  past.samples.splice(0, past.samples.length - SAMPLES_MAX);
  for (const event of told.events) past.events.set(event.id, event);
  for (const id of [...past.events.keys()].sort((one, other) => one - other).slice(0, -EVENTS_MAX)) past.events.delete(id);
  // A gateway that has just started has no samples yet.
  if (told.at_ms === 0) return;
  past.now = told;
  heard = performance.now();
  trouble = "";
  document.body.classList.remove("stale");
  if (told.events.length) show_events();
  show_now();
}

async function listen() {
  listening?.abort();
  const mine = new AbortController();
  listening = mine;
  try {
    const answer = await ask("/page/events", { signal: mine.signal });
    if (!answer.ok) throw Object.assign(new Error(await problem(answer)), { status: answer.status });
    signed_in();
    await each_event(answer, hear);
    trouble = "the gateway closed the connection";
  } catch (error) {
    if (mine.signal.aborted) return;
    trouble = error.status ? error.message : "the gateway does not answer";
    if (error.status === 401) {
      listening = null;
      pill("sign in", "warn");
      return;
    }
  }
  check_age();
  setTimeout(() => { if (listening === mine) listen(); }, RECONNECT_MS);
}

/** Shows the age of the data if it is stale. */
function check_age() {
  if (document.hidden || listening === null) return;
  const silent_ms = heard === null ? Infinity : performance.now() - heard;
  if (silent_ms < STALE_MS) return;
  const why = sentence(trouble || "the gateway is silent");
  if (!past.now) {
    if (trouble) {
      pill("no answer", "bad");
      banner(`${why}.`);
    }
    return;
  }
  const when = `${clock(past.now.at_ms)} UTC`;
  pill(`stale as of ${when}`, "old");
  document.title = "dkv: stale";
  at("as-of").textContent = `${age(silent_ms)} ago`;
  banner(`${why}; this page shows the state at ${when}.`, "old");
  document.body.classList.add("stale");
}

setInterval(check_age, 500);
document.addEventListener("visibilitychange", () => {
  if (document.hidden) listening?.abort();
  else listen();
});
// A page restored from the cache gets the history again.
window.addEventListener("pageshow", (event) => { if (event.persisted) listen(); });
open_view();
listen();
