// Tables of the node and of the agent: DNS, TCP, drops, connection tracking, slow packets, losses, budget.
import { byId, clean, el, say } from "./dom.js";
import { bytes, count, duration, moment, percent, plural, rate, span } from "./format.js";
import { merged, table } from "./tables.js";

const number = (title, of, text = count, more = {}) => ({ title, of, text, number: true, ...more });
const word = (title, of) => ({ title, of });
const trouble = { bad: (value) => value > 0 };
const sum = (rows, of) => rows.reduce((all, row) => all + of(row), 0);

/** All tables; yields a function that shows the windows of some minutes, of which the last is the one looked at. */
export function nodeTables() {
  const tables = make();
  return (frames) => {
    const last = frames.at(-1);
    if (!last) return;
    dns(frames, tables);
    tcp(frames, tables);
    drops(frames, tables);
    tables.conntrack(last.conntrack.map((row) => ({ ...row, used: row.max ? row.entries / row.max : null })));
    const slow = (all, row) => (all.latency_ns = Math.max(all.latency_ns, row.latency_ns));
    tables.slow(merged(frames.map((frame) => frame.slowest), (row) => `${row.signal} ${row.flow} ${row.scope}`, slow));
    tables.losses(merged(frames.map((frame) => frame.losses), (row) => row.reason, (all, row) => (all.count += row.count)));
  };
}

function make() {
  const minutes = "last five minutes";
  return {
    names: table(byId("dns-names"), {
      caption: `Slowest names, ${minutes}`, empty: "No DNS seen.", order: [4, -1],
      columns: [
        word("Name", (r) => r.name), word("Type", (r) => r.qtype), number("Queries", (r) => r.transactions),
        number("Timeouts", (r) => r.timeouts, count, trouble), number("Longest", (r) => r.max_ns, duration), number("Mean", (r) => r.mean_ns, duration),
      ],
    }),
    servers: table(byId("dns-servers"), {
      caption: `Resolvers, ${minutes}`, empty: "No resolver seen.", order: [2, -1],
      columns: [
        word("Resolver", (r) => r.server), word("Over", (r) => r.transport), number("Queries", (r) => r.transactions),
        number("Timeouts", (r) => r.timeouts, count, trouble), number("p50, latest", (r) => r.p50_ns, duration), number("p99, worst", (r) => r.p99_ns, duration),
      ],
    }),
    peers: table(byId("tcp-peers"), {
      caption: `Peers, ${minutes}`, empty: "No connection seen.", order: [3, -1],
      columns: [
        word("Peer", (r) => r.peer), number("Connections", (r) => r.connections), number("Failed", (r) => r.failures, count, trouble),
        number("Sent again", (r) => r.retransmits), number("Resets", (r) => r.resets), number("Smoothed round trip", (r) => r.srtt_p50_ns, duration),
      ],
    }),
    drops: table(byId("drops-table"), {
      caption: `Reasons and places, ${minutes}`, empty: "Nothing was dropped.", order: [3, -1],
      columns: [
        word("Reason", (r) => r.reason), word("Where", (r) => r.location), word("Interface", (r) => r.scope), number("Packets", (r) => r.count),
      ],
    }),
    conntrack: table(byId("conntrack-table"), {
      caption: "Connection tracking", empty: "No connection tracking in use.",
      columns: [
        word("Namespace", (r) => r.netns), number("Connections", (r) => r.entries), number("Most", (r) => r.max),
        number("Used", (r) => r.used, percent, { bad: (v) => v > 0.9 }), number("Dropped", (r) => r.drops, count, trouble), number("Not entered", (r) => r.insert_failed, count, trouble),
      ],
    }),
    slow: table(byId("slow-table"), {
      caption: `Slowest packets, ${minutes}`, empty: "No slow packet was kept.", order: [1, -1],
      columns: [word("Signal", (r) => r.signal), number("Latency", (r) => r.latency_ns, duration), word("Flow", (r) => r.flow), word("Interface", (r) => r.scope)],
    }),
    losses: table(byId("losses-table"), {
      caption: `Measurements lost, ${minutes}`, empty: "Nothing was lost while measuring.", order: [1, -1],
      columns: [word("Reason", (r) => r.reason), number("Lost", (r) => r.count), { ...word("Meaning", (r) => r.meaning), kind: "wide" }],
    }),
  };
}

function dns(frames, tables) {
  const add = (all, row) => {
    const answered = all.transactions - all.timeouts + row.transactions - row.timeouts;
    const weight = answered > 0 ? (row.transactions - row.timeouts) / answered : 0;
    all.mean_ns = Math.round(all.mean_ns * (1 - weight) + row.mean_ns * weight);
    all.max_ns = Math.max(all.max_ns, row.max_ns);
    all.transactions += row.transactions;
    all.timeouts += row.timeouts;
  };
  tables.names(merged(frames.map((frame) => frame.dns.names), (row) => `${row.name} ${row.qtype}`, add));
  const server = (all, row) => {
    all.transactions += row.transactions;
    all.timeouts += row.timeouts;
    all.p50_ns = row.p50_ns || all.p50_ns;
    all.p99_ns = Math.max(all.p99_ns, row.p99_ns);
  };
  tables.servers(merged(frames.map((frame) => frame.dns.servers), (row) => `${row.server} ${row.transport}`, server));
  const total = (of) => sum(frames, (frame) => of(frame.dns));
  const codes = merged(frames.map((frame) => frame.dns.rcodes.map(([name, n]) => ({ name, n }))), (row) => row.name, (all, row) => (all.n += row.n));
  const list = codes.map((row) => `${clean(row.name)} ${count(row.n)}`).join(", ");
  say(byId("dns-line"), `${plural(total((d) => d.transactions), "query", "queries")}, ${plural(total((d) => d.timeouts), "timeout", "timeouts")}, ` +
    `${plural(total((d) => d.retries), "retry", "retries")}, ${count(total((d) => d.truncated))} truncated${list && `; ${list}`}`);
}

function tcp(frames, tables) {
  const add = (all, row) => {
    for (const name of ["connections", "failures", "retransmits", "resets"]) all[name] += row[name];
    all.srtt_p50_ns = row.srtt_p50_ns ?? all.srtt_p50_ns;
  };
  tables.peers(merged(frames.map((frame) => frame.tcp.peers), (row) => row.peer, add));
  const total = (of) => sum(frames, (frame) => of(frame.tcp));
  const full = total((t) => t.listen_overflows ?? 0);
  say(byId("tcp-line"), `${plural(total((t) => t.failures), "connection failed", "connections failed")}, ${plural(total((t) => t.retransmits), "segment", "segments")} sent again, ` +
    `${plural(total((t) => t.resets), "reset", "resets")}${full ? `, ${count(full)} turned away by a full accept queue` : ""}`);
}

function drops(frames, tables) {
  const key = (row) => `${row.reason} ${row.location} ${row.scope}`;
  tables.drops(merged(frames.map((frame) => frame.drops), key, (all, row) => (all.count += row.count)));
  const last = frames.at(-1);
  const holes = last.black_holes ? `; ${plural(last.black_holes, "path swallows", "paths swallow")} long segments` : "";
  say(byId("drops-line"), `${rate(last.drops_per_s)} now; ${rate(last.fragments_per_s)} fragments${holes}`);
}

/** A bar of what is used of a limit. */
function meter(title, used, limit, text) {
  const share = limit ? used / limit : null;
  const level = share === null ? "" : share > 1 ? "bad" : share > 0.8 ? "warn" : "good";
  const value = limit ? `${text(used)} of ${text(limit)}` : `${text(used)}, no limit set`;
  const bar = el("span", { class: "fill" });
  bar.style.width = `${Math.min(100, 100 * (share ?? 0)).toFixed(1)}%`;
  return el("div", { class: `meter ${level}` },
    el("p", {}, el("b", {}, title), el("span", {}, value)), el("div", { class: "track", "aria-hidden": "true" }, bar));
}

/** Shows how the agent is doing. */
export function showStatus(status, now) {
  const { budget, history, flight } = status;
  say(byId("host"), clean(status.hostname || "this node"));
  document.title = `${clean(status.hostname || "node")}: nettrace agent`;
  say(byId("facts"), `${clean(status.kernel)} \u00b7 nettrace ${clean(status.version)} \u00b7 up ${span(now - status.since_unix_ms)} \u00b7 a window every ${duration(status.interval_ms * 1e6)}`);
  say(byId("agent-line"), `${plural(status.windows, "window", "windows")} closed since ${moment(status.since_unix_ms)}`);
  const step = budget.step > 0
    ? el("div", { class: "step warn" }, el("p", {}, el("b", {}, `Step ${budget.step} of backing off. `), "Switched down to stay within the budget:"),
        el("ul", {}, budget.reduced.map((text) => el("li", {}, clean(text)))))
    : el("p", { class: "step" }, `Within its budget: everything is measured as configured${budget.changes ? `; it backed off and came back, ${plural(budget.changes, "step", "steps")} in all` : ""}.`);
  byId("budget").replaceChildren(
    el("div", { class: "meters" },
      meter("CPU", budget.used_cpu_share, budget.cpu_share, percent), meter("Memory", budget.used_memory_bytes, budget.memory_bytes, bytes)),
    step);
  const rows = [
    ["Configuration", `${status.config ?? "none: the defaults"}${status.reloads ? `, read anew ${plural(status.reloads, "time", "times")}` : ""}`, ""],
    ["Configuration refused", status.config_error, "bad"],
    ["Last error", status.last_error, "bad"],
    ["Windows that failed", status.failed_windows || null, "bad"],
    ["History", history.dir ? `${count(history.written)} snapshots written to ${history.dir}, ${bytes(history.size_bytes)} on disk` : "not kept", ""],
    ["History stopped", history.error && `${history.error}; ${plural(history.failed, "snapshot", "snapshots")} not written`, "bad"],
    ["Flight recorder", flight.seconds ? `holds ${flight.seconds} s; ${plural(flight.written, "file", "files")} written${flight.suppressed ? `, ${count(flight.suppressed)} causes too soon after another` : ""}` : "off", ""],
    ["Last flight", flight.last, ""],
    ["Flight failed", flight.error, "bad"],
    ["Privileges", status.privileges.join(", ") || null, ""],
  ];
  byId("agent-facts").replaceChildren(
    el("h3", {}, "State"),
    el("dl", { class: "pairs" }, rows.filter(([, value]) => value).map(([name, value, level]) =>
      el("div", { class: level || null }, el("dt", {}, name), el("dd", {}, clean(value))))));
}
