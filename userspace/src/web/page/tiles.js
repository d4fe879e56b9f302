// The figures at a glance, each with its last quarter of an hour.
import { el, say, svg } from "./dom.js";
import { bytes, count, duration, percent, plural, rate } from "./format.js";

const SPARK_MS = 15 * 60_000;
const of = (frame, name) => frame.signals.find((row) => row.signal === name && row.scope === "all");
const p99 = (name) => (frame) => of(frame, name)?.p99_ns ?? null;
const p50 = (frame, name) => `p50 ${duration(of(frame, name)?.p50_ns)}`;

/** The slowest of the stages of sending. */
const slowest = (frame) =>
  frame.signals
    .filter((row) => row.scope === "all" && row.signal.startsWith("tx.") && row.count > 0)
    .reduce((most, row) => (most && most.p99_ns >= row.p99_ns ? most : row), null);

const cost = (frame) => frame.cost.own_cpu_share + frame.cost.kernel_cpu_share;

/** `value(frame)` is drawn; `note` explains; `level` says when it is to be looked at. */
const TILES = [
  {
    title: "Packets", color: "c10", value: (f) => f.packets_per_s, text: rate,
    note: (f) => (f.untimed_share > 0 ? `${percent(f.untimed_share)} passed untimed` : "all of them timed"),
  },
  { title: "Receiving, p99", color: "c2", value: p99("rx.total"), text: duration, note: (f) => p50(f, "rx.total"), log: true },
  {
    title: "Sending, p99", color: "c5", value: (f) => slowest(f)?.p99_ns ?? null, text: duration, log: true,
    note: (f) => (slowest(f) ? `slowest: ${slowest(f).signal}` : "nothing sent"),
  },
  { title: "Round trip, p99", color: "c8", value: p99("net.rtt"), text: duration, note: (f) => p50(f, "net.rtt"), log: true },
  {
    title: "DNS, p99", color: "c13", value: p99("dns.latency"), text: duration, log: true,
    note: (f) => (f.dns.timeouts ? plural(f.dns.timeouts, "query timed out", "queries timed out") : `${rate(f.dns.per_s)}, no timeout`),
    level: (f) => f.dns.timeouts > 0 && "bad",
  },
  {
    title: "Sent again", color: "c12", value: (f) => f.tcp.retransmit_share, text: percent,
    note: (f) => (f.tcp.failures ? plural(f.tcp.failures, "connection failed", "connections failed") : plural(f.tcp.retransmits, "segment", "segments")),
    level: (f) => (f.tcp.failures > 0 || f.tcp.retransmit_share > 0.01) && "warn",
  },
  {
    title: "Drops", color: "c6", value: (f) => f.drops_per_s, text: rate,
    note: (f) => (f.drops.length ? `most: ${f.drops[0].reason}` : "none"), level: (f) => f.drops_per_s > 0 && "warn",
  },
  {
    title: "Own cost, CPU", color: "c14", value: cost, text: percent,
    note: (f) => `${bytes(f.cost.rss_bytes + f.cost.map_bytes)}; ${count(f.losses.reduce((sum, row) => sum + row.count, 0))} lost`,
  },
];

/** The tiles in a list; yields a function that shows a frame and those before it. */
export function tiles(host) {
  const made = TILES.map((tile) => {
    const value = el("b", {}, "-");
    const note = el("span", { class: "note" }, "waiting for the first window");
    const line = svg("path", { class: "spark" });
    const area = svg("path", { class: "under" });
    const picture = svg("svg", { viewBox: "0 0 100 30", preserveAspectRatio: "none", "aria-hidden": "true" }, area, line);
    const node = el("li", { class: `tile ${tile.color}` }, el("span", { class: "title" }, tile.title), value, note, picture);
    return { ...tile, node, shown: value, said: note, line, area };
  });
  host.replaceChildren(...made.map((tile) => tile.node));
  return (frame, frames) => {
    const young = frames.filter((f) => f.at_unix_ms > frame.at_unix_ms - SPARK_MS && f.at_unix_ms <= frame.at_unix_ms);
    for (const tile of made) {
      const value = tile.value(frame);
      say(tile.shown, value === null || value === undefined ? "-" : tile.text(value));
      say(tile.said, tile.note(frame));
      tile.node.dataset.level = (tile.level && tile.level(frame)) || "";
      const path = spark(young, tile, frame.at_unix_ms);
      tile.line.setAttribute("d", path);
      tile.area.setAttribute("d", path && `${path}V30H${start(path)}Z`);
    }
  };
}

const start = (path) => path.slice(1).split(" ")[0];

function spark(frames, tile, end) {
  const points = frames
    .map((f) => [f.at_unix_ms, tile.value(f)])
    .filter(([, v]) => v !== null && v !== undefined && (!tile.log || v > 0))
    .map(([at, v]) => [at, tile.log ? Math.log10(v) : v]);
  if (points.length < 2) return "";
  const values = points.map(([, v]) => v);
  const low = tile.log ? Math.min(...values) - 0.1 : 0;
  const high = Math.max(...values, low + (tile.log ? 0.4 : 1e-9));
  const from = points[0][0];
  const x = (at) => ((100 * (at - from)) / Math.max(1, end - from)).toFixed(1);
  const y = (v) => (28 - (26 * (v - low)) / (high - low)).toFixed(1);
  return points.map(([at, v], i) => `${i ? "L" : "M"}${x(at)} ${y(v)}`).join("");
}
