// Requests to the gateway, with a token if it requires one.
"use strict";

let token = sessionStorage.getItem("token");

/** Sends a request. It times out after 15 s, unless the caller passes its own signal. */
async function ask(path, options = {}) {
  const headers = new Headers(options.headers);
  if (token) headers.set("Authorization", `Bearer ${token}`);
  const signal = options.signal ?? AbortSignal.timeout(15000);
  const answer = await fetch(path, { ...options, headers, signal, cache: "no-store" });
  if (answer.status === 401) sign_in(await problem(answer.clone()));
  return answer;
}

async function document_of(path) {
  const answer = await ask(path);
  if (!answer.ok) throw Object.assign(new Error(await problem(answer)), { status: answer.status });
  return answer.json();
}

/** Hands each server-sent event of an answer to `hear`, until the answer ends. */
async function each_event(answer, hear) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    text += value;
    const events = text.split("\n\n");
    text = events.pop();
    events.forEach(hear);
  }
}

/** The value of a field of a server-sent event. */
function event_field(event, name) {
  const start = `${name}: `;
  return event.split("\n").find((row) => row.startsWith(start))?.slice(start.length);
}

/** The message of a failed answer, in one line. */
async function problem(answer) {
  try {
    const document = await answer.json();
    return document.detail ?? document.error ?? answer.statusText;
  } catch {
    return `${answer.status} ${answer.statusText}`;
  }
}

/** Asks for a token and shows why. What was typed so far stays. */
function sign_in(why) {
  at("token-why").textContent = token ? `Signing in failed: ${why}.` : "";
  at("sign-out").hidden = true;
  if (!at("token-form").hidden) return;
  at("token-form").hidden = false;
  if (token && !at("token").value) at("token").value = token;
  at("token").focus();
}

/** Hides the form: the gateway accepted the token. */
function signed_in() {
  at("sign-out").hidden = !token;
  if (at("token-form").hidden) return;
  at("token-form").hidden = true;
  at("token-why").textContent = "";
  at("token").value = "";
}

at("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  token = at("token").value.trim();
  sessionStorage.setItem("token", token);
  at("token-why").textContent = "Signing in …";
  listen();
});

at("sign-out").addEventListener("click", () => {
  sessionStorage.removeItem("token");
  location.reload();
});
