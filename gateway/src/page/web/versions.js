// The versions of the key in the editor, and its value at an earlier revision.
"use strict";

const VERSIONS_AT_ONCE = 20;
/** Characters shown of a value in a row. */
const ROW_CHARS_MAX = 200;

/** The key whose versions are shown, and the target of the older ones. */
let versions = null;

const same_bytes = (one, other) => one.length === other.length && one.every((byte, index) => byte === other[index]);

/** The bytes of a member of JSON, or null if neither form of it is there. */
function bytes_of(object, name) {
  if (object[name] !== undefined) return text_to_bytes(object[name]);
  const base64 = object[`${name}_base64`];
  return base64 === undefined ? null : from_base64(base64);
}

/** The beginning of a value, in one line. */
function glimpse(value) {
  const shown = name_of(value.subarray(0, ROW_CHARS_MAX));
  return value.length > ROW_CHARS_MAX ? `${shown} …` : shown;
}

function version_row(key, version) {
  const value = bytes_of(version, "value");
  const revision = make("button", { type: "button", "aria-label": `Show the value at revision ${version.revision}` }, String(version.revision));
  revision.addEventListener("click", () => busy(() => get_at(key, version.revision)));
  const shown = value === null
    ? make("td", { className: "value deleted" }, "deleted")
    : make("td", { className: "value mono" }, glimpse(value));
  const row = make("tr", {},
    make("td", {}, revision),
    make("td", {}, moment(version.changed_at_ms)),
    make("td", {}, value === null ? "–" : count(version.version)),
    shown,
    make("td", {}, value === null ? "–" : bytes(value.length)));
  row.dataset.revision = version.revision;
  return row;
}

/** Marks the row of the value in the editor. */
function mark_version() {
  const revision = String(loaded?.revision ?? "");
  for (const row of at("version-rows").children) {
    row.setAttribute("aria-current", String(row.dataset.revision === revision));
  }
}

function hide_versions() {
  versions = null;
  at("versions").hidden = true;
}

/** Shows the versions of a key, or the next page of them. An error is shown in their place. */
async function show_versions(key, target) {
  const mine = { key, next: null };
  if (!target) versions = mine;
  const encoded = path_of(key).slice("/v1/kv/".length);
  try {
    const page = await document_of(target ?? `/v1/history?key=${encoded}&limit=${VERSIONS_AT_ONCE}`);
    // Another key may have been chosen meanwhile.
    if (!versions || !same_bytes(versions.key, key)) return;
    const rows = page.versions.map((version) => version_row(key, version));
    if (target) at("version-rows").append(...rows);
    else at("version-rows").replaceChildren(...rows);
    versions.next = page.next;
    at("versions-said").hidden = true;
    at("floor").textContent = page.floor_revision > 1
      ? `The history of shard ${page.shard} goes back to revision ${page.floor_revision}.`
      : `Shard ${page.shard} keeps its whole history so far.`;
  } catch (error) {
    if (!versions || !same_bytes(versions.key, key)) return;
    if (!target) at("version-rows").replaceChildren();
    at("versions-said").textContent = error.message;
    at("versions-said").hidden = false;
    versions.next = target ?? null;
    at("floor").textContent = "";
  }
  at("versions").hidden = at("version-rows").children.length === 0 && at("versions-said").hidden;
  at("versions-title").replaceChildren("Versions of ", make("span", { className: "mono" }, name_of(key)));
  at("older").hidden = versions.next === null;
  mark_version();
}

/** Shows the value that a key had at a revision. Put would make it the latest. */
async function get_at(key, revision) {
  // A put is conditional on the latest value, which is therefore loaded first.
  if (!loaded || !same_bytes(loaded.key, key)) await get(key);
  const etag = loaded?.etag ?? null;
  const answer = await ask(`${path_of(key)}?revision=${revision}`);
  if (answer.status === 404) {
    fill(key, null, `did not exist at revision ${revision}`, etag);
  } else if (!answer.ok) {
    return say(await problem(answer), true);
  } else {
    const value = new Uint8Array(await answer.arrayBuffer());
    fill(key, value, about_answer(answer, value.length), etag, Number(answer.headers.get("Dkv-Revision")));
  }
  loaded.is_past = `"${loaded.revision}"` !== etag;
  at("read-at").value = revision;
  mark_version();
  say(loaded.is_past ? `As of revision ${revision}. Put would make this the latest value; Get loads the latest.` : "");
}

at("older").addEventListener("click", () => busy(() => show_versions(versions.key, versions.next)));
at("show-at").addEventListener("click", with_key((key) => {
  const field = at("read-at");
  if (!field.value) {
    say("Enter a revision of the key's shard.", true);
    return field.focus();
  }
  if (!field.reportValidity()) return;
  return get_at(key, field.value);
}));
at("read-at").addEventListener("keydown", (event) => {
  if (event.key !== "Enter") return;
  event.preventDefault();
  at("show-at").click();
});
