// The keys: a list by prefix, and an editor.
"use strict";

const FOUND_AT_ONCE = 50;
/** Bytes shown of a value that is not text. */
const SHOWN_BYTES_MAX = 4096;

let loaded = null;

/** The path of a key. */
function path_of(key) {
  const encoded = [...key].map((byte) => /[A-Za-z0-9_.~-]/.test(String.fromCharCode(byte)) ? String.fromCharCode(byte) : `%${byte.toString(16).padStart(2, "0")}`).join("");
  // A path segment of one or two dots would name another path.
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

/** The display form of a key, in one line: an input field would drop line breaks. */
function name_of(key) {
  const text = as_text(key);
  return text === null || /[\x00-\x1f\x7f]/.test(text) ? escaped(key) : text;
}

/** The text of a value, or null if it cannot be edited: a text area would change carriage returns. */
function editable(value) {
  const text = as_text(value);
  return text === null || /[\x00\r]/.test(text) ? null : text;
}

function say(text, bad = false) {
  at("said").textContent = text;
  at("said").className = bad ? "bad" : "";
}

/** The bytes of the key in the editor. */
function key_now() {
  const text = at("key").value;
  return loaded && loaded.shown === text ? loaded.key : text_to_bytes(text);
}

/** Shows a value; `etag` is that of the latest value of the key, `revision` that of this one. */
function fill(key, value, about, etag, revision = null) {
  const shown = name_of(key);
  const text = value === null ? "" : editable(value);
  at("key").value = shown;
  at("value").value = text ?? escaped(value.subarray(0, SHOWN_BYTES_MAX));
  at("value").readOnly = text === null;
  at("put").disabled = text === null;
  const part = value?.length > SHOWN_BYTES_MAX ? `; only the first ${bytes(SHOWN_BYTES_MAX)} are shown` : "";
  at("about").textContent = text === null ? `${about}; not plain text, so it cannot be edited here${part}` : about;
  loaded = { key, shown, etag, revision, text: at("value").value, is_past: false };
  at("read-at").value = "";
  mark_keys();
  mark_version();
}

/** Marks the key of the editor in the list. */
function mark_keys() {
  for (const row of at("found").children) {
    const is_current = loaded !== null && same_bytes(row.key, loaded.key);
    row.firstElementChild.setAttribute("aria-current", String(is_current));
  }
}

/** The row of a key in the list. */
function key_row(key) {
  const button = make("button", { type: "button", "aria-current": "false" }, name_of(key));
  button.addEventListener("click", () => busy(() => {
    const revision = at("list-at").value;
    return revision ? get_at(key, revision) : get(key);
  }));
  const row = make("li", {}, button);
  row.key = key;
  return row;
}

const about_answer = (answer, length) =>
  `${bytes(length)}, revision ${answer.headers.get("Dkv-Revision")}, shard ${answer.headers.get("Dkv-Shard")}`;

async function get(key) {
  const answer = await ask(path_of(key));
  if (answer.status === 404) {
    fill(key, null, "no such key", null);
    say("This key does not exist. Put creates it.");
    return show_versions(key);
  }
  if (!answer.ok) return say(await problem(answer), true);
  const value = new Uint8Array(await answer.arrayBuffer());
  fill_latest(key, value, answer);
  say("");
  await show_versions(key);
}

function fill_latest(key, value, answer) {
  fill(key, value, about_answer(answer, value.length), answer.headers.get("ETag"), Number(answer.headers.get("Dkv-Revision")));
}

async function put(key) {
  const value = text_to_bytes(at("value").value);
  const headers = {};
  // A put overwrites only the value that was loaded.
  if (loaded && loaded.shown === at("key").value) {
    if (loaded.etag) headers["If-Match"] = loaded.etag;
    else headers["If-None-Match"] = "*";
  }
  const answer = await ask(path_of(key), { method: "PUT", headers, body: value });
  if (answer.status === 412) return say("The key was changed in the meantime. Get loads the current value.", true);
  if (!answer.ok) return say(await problem(answer), true);
  fill_latest(key, value, answer);
  say(`Written at revision ${answer.headers.get("Dkv-Revision")}.`);
  await Promise.all([list(), show_versions(key)]);
}

async function remove(key) {
  const headers = loaded?.etag && loaded.shown === at("key").value ? { "If-Match": loaded.etag } : {};
  const answer = await ask(path_of(key), { method: "DELETE", headers });
  if (answer.status === 412) return say("The key was changed in the meantime. Get loads the current value.", true);
  if (!answer.ok) return say(await problem(answer), true);
  fill(key, null, "deleted", null);
  say("Deleted.");
  await Promise.all([list(), show_versions(key)]);
}

let next = null;

/** The prefix in the form, percent-encoded. */
const prefix_now = () => [...text_to_bytes(at("prefix").value)].map((byte) => `%${byte.toString(16).padStart(2, "0")}`).join("");

async function list(target) {
  const more = target !== undefined;
  at("listed").textContent = "";
  at("listed").className = "quiet";
  const revision = at("list-at").value ? `&revision=${at("list-at").value}` : "";
  try {
    const page = await document_of(target ?? `/v1/kv?values=false&limit=${FOUND_AT_ONCE}&prefix=${prefix_now()}${revision}`);
    if (!more) at("found").replaceChildren();
    at("found").append(...page.pairs.map((pair) => key_row(bytes_of(pair, "key"))));
    next = page.next;
    mark_keys();
    if (revision) at("listed").textContent = `As of revision ${at("list-at").value}.`;
  } catch (error) {
    // Keys of another prefix or revision would pass for the answer.
    if (!more) {
      at("found").replaceChildren();
      next = null;
    }
    at("listed").textContent = error.message;
    at("listed").className = "bad";
  }
  at("more").hidden = next === null;
  at("found-none").hidden = at("found").children.length > 0 || at("listed").className === "bad";
}

/** Runs an operation, and shows its error. */
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

/** The same with the key in the editor, which must not be empty. */
const with_key = (work) => () => {
  if (at("key").reportValidity()) busy(() => work(key_now()));
};

at("find").addEventListener("submit", (event) => { event.preventDefault(); busy(() => list()); });
at("more").addEventListener("click", () => busy(() => list(next)));
at("editor").addEventListener("submit", (event) => { event.preventDefault(); busy(() => put(key_now())); });
at("get").addEventListener("click", with_key(get));
at("delete").addEventListener("click", with_key(() => {
  at("sure-title").textContent = `Delete ${at("key").value} permanently?`;
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
  hide_versions();
  mark_keys();
  say("");
  at("key").focus();
});
