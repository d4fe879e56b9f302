// Where time goes: a lane for each signal, in the order of a packet's way, on one logarithmic axis.
import { el, say, svg } from "./dom.js";
import { count, decade, duration } from "./format.js";
import { table } from "./tables.js";

const GROUPS = {
  "rx.": "Receiving",
  "fwd.": "Forwarding",
  "tx.": "Sending",
  "net.": "Round trips",
  "tcp.srtt": "Round trips",
  "nf.": "Rules and tracking",
  "ct.": "Rules and tracking",
  "tcp.": "Handshakes",
  "dns.": "Names",
  "ip.": "Fragments",
};
const group = (name) =>
  GROUPS[name] ?? Object.entries(GROUPS).find(([prefix]) => name.startsWith(prefix))?.[1] ?? "Other";

/** Quantiles of a row of a frame; a bucket's upper end may be above the exact maximum. */
export function marks(row) {
  const [p50, p90, p99, p999] = [row.p50_ns, row.p90_ns, row.p99_ns, row.p999_ns].map((ns) => Math.min(ns, row.max_ns));
  return { p50, p90, p99, p999, max: row.max_ns };
}

/** The waterfall in a host element; yields a function that shows a frame's signals and the usual p99 of each. */
export function waterfall(host, tableHost, signals) {
  const lanes = new Map();
  const axis = svg("svg", { class: "axis", height: 20, "aria-hidden": "true" });
  const rows = el("div", { class: "lanes" });
  const none = el("p", { class: "none" }, "No latency was measured in this window: no traffic, or no probe could run.");
  const head = el(
    "div",
    { class: "lane head" },
    el("span", {}),
    axis,
    el("span", { class: "values", "aria-hidden": "true" }, el("b", {}, "p50"), el("b", {}, "p99"), el("b", {}, "max")),
  );
  host.replaceChildren(none, head, rows);
  const show = table(tableHost, {
    caption: "Latencies by signal",
    empty: "Nothing was measured.",
    rows: 40,
    columns: [
      { title: "Signal", of: (row) => row.signal },
      { title: "From and to", of: (row) => definition(row.signal), kind: "wide" },
      ...["p50", "p90", "p99", "p999", "max"].map((name) => ({
        title: name === "p999" ? "p99.9" : name,
        of: (row) => marks(row)[name],
        text: duration,
        number: true,
      })),
      { title: "Usual p99", of: (row) => row.usual, text: duration, number: true },
      { title: "Count", of: (row) => row.count, text: count, number: true },
    ],
  });

  const known = new Map(signals.map((signal, place) => [signal.name, { ...signal, place }]));
  const definition = (name) => known.get(name)?.definition ?? "";
  const place = (name) => known.get(name)?.place ?? signals.length;

  function lane(name) {
    if (lanes.has(name)) return lanes.get(name);
    const title = svg("title");
    const parts = {
      grid: svg("g"),
      whisker: svg("line", { class: "whisker", y1: 13, y2: 13 }),
      range: svg("rect", { class: "range", y: 6, height: 14, rx: 2 }),
      p50: svg("line", { class: "mark median", y1: 4, y2: 22 }),
      p90: svg("line", { class: "mark", y1: 6, y2: 20 }),
      p99: svg("line", { class: "mark", y1: 6, y2: 20 }),
      p999: svg("line", { class: "mark", y1: 9, y2: 17 }),
      max: svg("circle", { class: "max", cy: 13, r: 3 }),
      usual: svg("svg", { class: "usual", overflow: "visible" }, svg("path", { d: "M0 7l5 6l-5 6l-5 -6z" })),
    };
    const picture = svg("svg", { height: 26, role: "img" }, title, Object.values(parts));
    const values = ["p50", "p99", "max"].map(() => el("b"));
    const node = el(
      "div",
      { class: `lane c${known.get(name)?.color ?? 14}` },
      el("span", { class: "name", title: definition(name) }, name),
      picture,
      el("span", { class: "values", "aria-hidden": "true" }, values),
    );
    const made = { node, parts, values, title };
    lanes.set(name, made);
    return made;
  }

  return (frame, usual) => {
    const shown = frame.signals
      .filter((row) => row.scope === "all" && row.count > 0 && known.has(row.signal))
      .sort((a, b) => place(a.signal) - place(b.signal));
    none.hidden = shown.length > 0;
    head.hidden = shown.length === 0;
    const scale = axisOf(shown, usual);
    drawAxis(axis, scale);
    const nodes = [];
    let above = null;
    for (const row of shown) {
      const here = group(row.signal);
      if (here !== above) nodes.push(el("p", { class: "group" }, here));
      above = here;
      const made = lane(row.signal);
      draw(made, row, usual.get(row.signal), scale);
      nodes.push(made.node);
    }
    rows.replaceChildren(...nodes);
    show(shown.map((row) => ({ ...row, usual: usual.get(row.signal) })));
  };
}

/** Decades that hold all that is shown. */
function axisOf(rows, usual) {
  const low = rows.map((row) => Math.max(1, marks(row).p50));
  const high = rows.map((row) => Math.max(row.max_ns, usual.get(row.signal) ?? 0));
  const first = Math.floor(Math.log10(Math.min(...low, 1e6)));
  const last = Math.max(first + 1, Math.ceil(Math.log10(Math.max(...high, 1e3))));
  const at = (ns) => (100 * (Math.log10(Math.max(1, ns)) - first)) / (last - first);
  const ticks = Array.from({ length: last - first + 1 }, (_, i) => 10 ** (first + i));
  return { at: (ns) => `${Math.max(0, Math.min(100, at(ns))).toFixed(2)}%`, share: at, ticks };
}

function drawAxis(axis, { at, ticks }) {
  const labels = ticks.map((ns, i) => {
    const end = i === 0 ? "first" : i === ticks.length - 1 ? "last" : "";
    // Every other one where there is little room.
    return svg("text", { x: at(ns), y: 14, class: `${end}${i % 2 && ticks.length > 5 ? " spare" : ""}` }, decade(ns));
  });
  axis.replaceChildren(...labels);
}

function draw({ parts, values, title }, row, usual, { at, share, ticks }) {
  const { p50, p90, p99, p999, max } = marks(row);
  const set = (node, attributes) => Object.entries(attributes).forEach(([k, v]) => node.setAttribute(k, v));
  parts.grid.replaceChildren(...ticks.map((ns) => svg("line", { class: "grid", x1: at(ns), x2: at(ns), y1: 0, y2: 26 })));
  set(parts.whisker, { x1: at(p99), x2: at(max) });
  set(parts.range, { x: at(p50), width: `${Math.max(0.3, share(p99) - share(p50)).toFixed(2)}%` });
  for (const [name, ns] of Object.entries({ p50, p90, p99, p999 })) set(parts[name], { x1: at(ns), x2: at(ns) });
  set(parts.max, { cx: at(max) });
  parts.usual.setAttribute("visibility", usual ? "visible" : "hidden");
  if (usual) parts.usual.setAttribute("x", at(usual));
  [p50, p99, max].forEach((ns, i) => say(values[i], duration(ns)));
  const before = usual ? `, usual p99 ${duration(usual)}` : "";
  say(
    title,
    `${row.signal}, ${count(row.count)} counted: p50 ${duration(p50)}, p90 ${duration(p90)}, p99 ${duration(p99)}, ` +
      `p99.9 ${duration(p999)}, slowest ${duration(max)}${before}`,
  );
}
