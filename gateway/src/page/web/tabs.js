// The views, one at a time. The fragment of the address names the view, so that links work.
"use strict";

const tabs = [...document.querySelectorAll("[role=tab]")];
let keys_listed = false;

function open_view() {
  const chosen = tabs.find((tab) => tab.hash === location.hash) ?? tabs[0];
  for (const tab of tabs) {
    const is_chosen = tab === chosen;
    tab.setAttribute("aria-selected", String(is_chosen));
    tab.tabIndex = is_chosen ? 0 : -1;
    at(tab.getAttribute("aria-controls")).hidden = !is_chosen;
  }
  if (chosen.id === "tab-keys" && !keys_listed) {
    keys_listed = true;
    busy(() => list());
  }
  if (past.now) show_now();
}

for (const [index, tab] of tabs.entries()) {
  tab.addEventListener("click", (event) => {
    event.preventDefault();
    history.replaceState(null, "", tab.hash);
    open_view();
  });
  tab.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const other = tabs[(index + step + tabs.length) % tabs.length];
    other.click();
    other.focus();
  });
}

window.addEventListener("hashchange", open_view);
