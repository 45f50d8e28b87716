// The nodes, the shards, and the replicas of each shard on each node.
"use strict";

/** A replica counts as behind if it lags by more entries than this. */
const BEHIND_MIN = 100;
/** If there are more shards, only those with a problem are shown. */
const SHARDS_SHOWN_MAX = 256;

function node_card(node) {
  const leads = node.role === "coordinator" && node.reachable;
  const state = !node.reachable ? "does not answer" : leads ? "coordinator" : node.retiring ? "retiring" : node.draining ? "draining" : node.state;
  const few = node.primaries.length <= 6;
  const rows = [
    ["address", node.address],
    ...(node.region ? [["region", node.region]] : []),
    ...(node.reachable ? [
      ["primary of", few ? node.primaries.join(", ") || "–" : `${node.primaries.length} shards`],
      ["replicas", count(node.replicas)],
      ["lag", node.applied_lag == null ? "–" : `${count(node.applied_lag)} ${node.applied_lag === 1 ? "entry" : "entries"}`],
      ["fsync", duration(node.fsync_us)],
      ["log", bytes(node.log_bytes)],
      ["uptime", age(node.uptime_ms)],
    ] : [["error", node.error ?? "–"]]),
    ...(node.pending ? [["undelivered", count(node.pending)]] : []),
    ...(node.disk_full ? [["disk", "full, refuses writes"]] : []),
    ...(node.may_stop ? [["", "can be switched off"]] : []),
  ];
  return make("li", { className: node.reachable ? (leads ? "leads" : node.disk_full ? "hurt" : "") : "gone" },
    make("div", { className: "head" }, make("b", {}, node.name), make("span", { className: "tag" }, state)),
    make("dl", {}, ...rows.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)])));
}

/** The health of a shard: `bad` if its keys cannot be used, `warn` if it tolerates no failure. */
function shard_health(shard) {
  if (!shard.primary || shard.spare < 0) return "bad";
  return shard.spare === 0 ? "warn" : "";
}

function shard_item(shard) {
  const voters = shard.voters.map((voter) => voter.reachable ? voter.name : `${voter.name} (does not answer)`).join(", ");
  return make("li", { className: shard_health(shard), title: `shard ${shard.group}: term ${shard.term ?? "–"}, revision ${shard.revision ?? "–"}, voters ${voters}` },
    make("span", {}, `shard ${shard.group}`), make("b", {}, shard.primary ?? "no primary"));
}

/** The class of the cell of a shard and a node. */
function cell_of(shard, node) {
  const replica = shard.voters.find((it) => it.id === node.id) ?? shard.learners.find((it) => it.id === node.id);
  if (!replica) return "none";
  if (!replica.reachable) return "gone";
  if (replica.leader) return "primary";
  return replica.applied_lag > BEHIND_MIN ? "behind" : "fine";
}

const CELLS = { none: "no replica", gone: "does not answer", primary: "primary", behind: "behind", fine: "replica" };

function grid_row(node, shards) {
  const counts = { primary: 0, fine: 0, behind: 0, gone: 0, none: 0 };
  const cells = shards.map((shard) => {
    const what = cell_of(shard, node);
    counts[what] += 1;
    return make("i", { className: `cell ${what}`, title: `${node.name}, shard ${shard.group}: ${CELLS[what]}` });
  });
  const label = `${node.name}: primary of ${counts.primary}, replica of ${counts.fine}, behind in ${counts.behind}, not answering in ${counts.gone}`;
  return make("div", { className: "row" }, make("span", { className: "name", title: node.name }, node.name),
    make("div", { className: "cells", role: "img", "aria-label": label }, ...cells));
}

function show_nodes(report) {
  at("warnings").hidden = report.warnings.length === 0;
  show(at("warnings"), report.warnings.map((warning) => make("li", {}, warning)));
  show(at("nodes"), report.nodes.map(node_card));
  const shards = report.groups.filter((group) => group.group !== 0);
  const [bad, fragile] = ["bad", "warn"].map((what) => shards.filter((shard) => shard_health(shard) === what).length);
  at("shards-sum").textContent = `${count(shards.length - bad - fragile)} of ${count(shards.length)} healthy`
    + (fragile ? `, ${count(fragile)} tolerating no failure` : "")
    + (bad ? `, ${count(bad)} without a primary or a majority` : "");
  const shown = shards.length <= SHARDS_SHOWN_MAX ? shards : shards.filter(shard_health);
  at("shards").className = shown.length > 16 ? "shards many" : "shards";
  show(at("shards"), shown.slice(0, SHARDS_SHOWN_MAX).map(shard_item));
  at("grid").className = shards.length > 100 ? "grid many" : "grid";
  show(at("grid"), report.nodes.map((node) => grid_row(node, shards)));
}
