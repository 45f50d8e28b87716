// Asking the gateway, with a token where it takes one.
"use strict";

let token = sessionStorage.getItem("token");

/** Asks for something; an answer that is late is none, unless it goes on for as long as the page. */
async function ask(path, options = {}) {
  const headers = new Headers(options.headers);
  if (token) headers.set("Authorization", `Bearer ${token}`);
  const signal = options.signal ?? AbortSignal.timeout(15000);
  const answer = await fetch(path, { ...options, headers, signal, cache: "no-store" });
  if (answer.status === 401) sign_in((await problem(answer.clone())));
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

/** Asks for a token, and says why; what was typed stays. */
function sign_in(why) {
  at("token-why").textContent = token ? `Signing in failed: ${why}.` : "";
  at("sign-out").hidden = true;
  if (!at("token-form").hidden) return;
  at("token-form").hidden = false;
  if (token && !at("token").value) at("token").value = token;
  at("token").focus();
}

/** A token was taken. */
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
