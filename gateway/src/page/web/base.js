// Shared by the other files: helpers for elements, and formats of numbers.
"use strict";

const at = (id) => document.getElementById(id);

/** Creates an element with properties and children (elements or texts). */
function make(name, properties, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties ?? {})) {
    if (key.startsWith("aria-") || key === "role") element.setAttribute(key, value);
    else element[key] = value;
  }
  element.append(...children);
  return element;
}

/** Replaces the children of a list, touching only those that changed. */
function show(list, children) {
  children.forEach((child, index) => {
    const old = list.children[index];
    if (!old) list.append(child);
    else if (!old.isEqualNode(child)) old.replaceWith(child);
  });
  while (list.children.length > children.length) list.lastElementChild.remove();
}

const number = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const count = (value) => (value == null ? "–" : number.format(value));

function bytes(value) {
  if (value == null) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) { value /= 1024; unit += 1; }
  return `${unit && value < 10 ? value.toFixed(1) : Math.round(value)} ${units[unit]}`;
}

function duration(us) {
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

/** Formats a date and time in UTC. */
const moment = (at_ms) => (at_ms == null ? "–" : new Date(at_ms).toISOString().slice(0, 23).replace("T", " "));

/** Formats a time of the gateway's clock, in UTC. */
const clock = (at_ms, seconds = true) => new Date(at_ms).toISOString().slice(11, seconds ? 19 : 16);
