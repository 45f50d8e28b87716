// Changes as they happen. The stream is resumed after the last event, as an EventSource does it;
// an EventSource itself could not send a token.
"use strict";

const FOLLOW_RETRY_MS = 1000;
const CHANGES_MAX = 100;

/** The running watch: its keys, the id of its last event, and how to end it. */
let followed = null;

const compare_bytes = (one, other) => {
  const length = Math.min(one.length, other.length);
  for (let index = 0; index < length; index += 1) {
    if (one[index] !== other[index]) return one[index] - other[index];
  }
  return one.length - other.length;
};

function show_following(text, bad = false) {
  at("following").textContent = text;
  at("following").className = bad ? "quiet bad" : "quiet";
}

/** Adds a key to the list, or removes it. */
function update_list(key, exists) {
  if (at("list-at").value) return;
  const rows = [...at("found").children];
  const place = rows.findIndex((row) => compare_bytes(row.key, key) >= 0);
  const row = place >= 0 && same_bytes(rows[place].key, key) ? rows[place] : null;
  if (row) {
    if (!exists) row.remove();
    else refresh_row(row);
  } else if (exists && (place >= 0 || next === null)) {
    const added = key_row(key);
    if (place >= 0) rows[place].before(added);
    else at("found").append(added);
    refresh_row(added);
  }
  at("found-none").hidden = at("found").children.length > 0;
}

/** Lets a row stand out for a moment. */
function refresh_row(row) {
  const button = row.firstElementChild;
  button.classList.remove("fresh");
  void button.offsetWidth;
  button.classList.add("fresh");
}

/** Shows a change in the editor, unless something else was typed there. */
function update_editor(key, change, value) {
  if (!loaded || !same_bytes(loaded.key, key) || loaded.etag === `"${change.revision}"`) return;
  if (loaded.is_past || at("key").value !== loaded.shown || at("value").value !== loaded.text) {
    return say(`The key was changed at revision ${change.revision}. Get loads the current value.`, true);
  }
  if (value === null) fill(key, null, `deleted at revision ${change.revision}`, null);
  else fill(key, value, `${bytes(value.length)}, revision ${change.revision}, shard ${change.shard}`, `"${change.revision}"`, change.revision);
  say(`Changed at revision ${change.revision}.`);
}

function update_versions(key, change) {
  if (!versions || !same_bytes(versions.key, key)) return;
  const rows = at("version-rows");
  if (Number(rows.firstElementChild?.dataset.revision ?? 0) >= change.revision) return;
  rows.prepend(version_row(key, change));
  at("versions").hidden = false;
  mark_version();
}

function hear_change(event) {
  const kind = event_field(event, "event");
  const data = event_field(event, "data");
  if (!data) return;
  const told = JSON.parse(data);
  if (kind === "error") throw Object.assign(new Error(told.detail), { status: told.status });
  followed.id = event_field(event, "id") ?? followed.id;
  show_following(`live, at ${followed.id}`);
  if (kind === "begin" && !followed.begun) {
    followed.begun = true;
    // From here on no change is missed, so that a list that is made now is kept up to date.
    busy(() => list());
  }
  if (kind !== "put" && kind !== "delete") return;
  const key = bytes_of(told, "key");
  const value = bytes_of(told, "value");
  const name = make("button", { type: "button", className: "mono" }, name_of(key));
  name.addEventListener("click", () => busy(() => get(key)));
  const shown = value === null
    ? make("span", { className: "value deleted" }, "deleted")
    : make("span", { className: "value mono" }, glimpse(value));
  at("changed").prepend(make("li", {},
    make("time", {}, told.changed_at_ms === null ? "–" : clock(told.changed_at_ms)),
    make("span", { className: "place" }, `${told.shard}:${told.revision}`),
    name,
    shown));
  while (at("changed").children.length > CHANGES_MAX) at("changed").lastElementChild.remove();
  at("changed-none").hidden = true;
  update_list(key, value !== null);
  update_editor(key, told, value);
  update_versions(key, told);
}

/** Reads the stream until it is stopped, or cannot be resumed. */
async function run_follow(mine) {
  for (;;) {
    let trouble = "the gateway closed the connection";
    try {
      const headers = mine.id ? { "Last-Event-ID": mine.id } : {};
      const answer = await ask(`/v1/watch?prefix=${mine.prefix}`, { headers, signal: mine.controller.signal });
      if (!answer.ok) throw Object.assign(new Error(await problem(answer)), { status: answer.status });
      await each_event(answer, (event) => { if (followed === mine) hear_change(event); });
    } catch (error) {
      if (followed !== mine || mine.controller.signal.aborted) return;
      // A request that was refused, or a history that is gone, stays so.
      if (error.status < 500) {
        stop_follow();
        at("changes").hidden = false;
        return show_following(`Stopped: ${error.message}.`, true);
      }
      trouble = error.status ? error.message : "the gateway does not answer";
    }
    if (followed !== mine || mine.controller.signal.aborted) return;
    show_following(`${sentence(trouble)}; resuming ${mine.id ? `after ${mine.id}` : "soon"} …`, true);
    await new Promise((done) => setTimeout(done, FOLLOW_RETRY_MS));
    if (followed !== mine || mine.controller.signal.aborted) return;
  }
}

function start_follow() {
  const prefix = prefix_now();
  followed = { prefix, id: null, begun: false, controller: new AbortController() };
  at("follow").setAttribute("aria-pressed", "true");
  at("changes").hidden = false;
  at("changed").replaceChildren();
  at("changed-none").hidden = false;
  const shown = at("prefix").value;
  at("changes-title").replaceChildren(...(shown ? ["Changes of ", make("span", { className: "mono" }, shown), " …"] : ["Changes"]));
  show_following("connecting …");
  run_follow(followed);
}

function stop_follow() {
  followed?.controller.abort();
  followed = null;
  at("follow").setAttribute("aria-pressed", "false");
  show_following("");
}

at("follow").addEventListener("click", () => {
  if (!followed) return start_follow();
  stop_follow();
  at("changes").hidden = true;
});
// Another prefix is another watch.
at("find").addEventListener("submit", () => {
  if (followed && followed.prefix !== prefix_now()) {
    stop_follow();
    start_follow();
  }
});
// A hidden page holds no stream; it resumes where it was.
document.addEventListener("visibilitychange", () => {
  if (!followed) return;
  followed.controller.abort();
  if (document.hidden) return;
  followed = { ...followed, controller: new AbortController() };
  run_follow(followed);
});
