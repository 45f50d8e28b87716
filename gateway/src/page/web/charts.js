// Charts over time, by the gateway's clock, with marks at failovers.
"use strict";

/** A linear scale from zero to a round number: maps values to shares of the height, and has labels. */
function linear(values, unit) {
  const most = Math.max(2, ...values);
  const power = 10 ** Math.floor(Math.log10(most));
  const top = power * [1, 2, 5, 10].find((step) => step * power >= most);
  return { place: (value) => value / top, marks: [0, 0.5, 1].map((share) => [share, `${number.format(share * top)}${unit}`]) };
}

/** A logarithmic scale of durations, so that a long one does not flatten the others. */
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

/** A line breaks between two samples that are further apart than this. */
const GAP_MS = 12000;

/** The y coordinate of a share of the height. */
const down = (share) => CHART.margin + (1 - share) * (CHART.height - 2 * CHART.margin);

/** The time span of the charts: the selected number of seconds before the latest sample. */
function shown_time(now_ms) {
  const span_ms = Number(at("window").value) * 1000;
  return { from_ms: now_ms - span_ms, until_ms: now_ms, share: (at_ms) => 1 - (now_ms - at_ms) / span_ms };
}

/** The path of a line through points of time and value, with gaps where values are missing. */
function line(points, scale, time, area = false) {
  let path = "", open = false, begun = 0, last = null;
  const close = (at) => { if (open && area) path += `V${down(0)}H${begun.toFixed(1)}Z`; open = false; };
  for (const [at_ms, value] of points) {
    const x = time.share(at_ms) * CHART.width;
    if (last !== null && at_ms - last > GAP_MS) close();
    last = at_ms;
    if (value == null) {
      close();
      continue;
    }
    const y = down(scale.place(value)).toFixed(1);
    if (!open) {
      begun = x;
      path += area ? `M${x.toFixed(1)},${down(0)}V${y}` : `M${x.toFixed(1)},${y}h.01`;
    }
    path += `L${x.toFixed(1)},${y}`;
    open = true;
  }
  close();
  return path;
}

/** Draws the rules, the lines and the marks of failovers. */
function draw(chart, scale, lines, marks, time, label) {
  const rules = scale.marks.map(([share]) => ["rule", `M0,${down(share).toFixed(1)}H${CHART.width}`]);
  const failovers = marks.map((at_ms) => ["failover", `M${(time.share(at_ms) * CHART.width).toFixed(1)},0V${CHART.height}`]);
  chart.replaceChildren(...[...rules, ...lines, ...failovers].map(([kind, path]) => {
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

/** Writes the times below every chart. */
function draw_axes(time) {
  const span_ms = time.until_ms - time.from_ms;
  const texts = [0, 0.5, 1].map((share) => clock(time.from_ms + share * span_ms));
  for (const axis of document.querySelectorAll(".axis")) {
    show(axis, texts.map((text) => make("span", {}, text)));
  }
}
