// The page: follows the agent, keeps hours of frames, and shows the latest or a chosen moment.
import { showChanges } from "./changes.js";
import { byId, el, say } from "./dom.js";
import { showFindings } from "./findings.js";
import { bytes, clock, duration, field, moment, percent, rate, span } from "./format.js";
import { nodeTables, showStatus } from "./node.js";
import { choice, redrawAll, showAll, TimePlot, whenPicked } from "./plots.js";
import { ask, follow, json, token, Unauthorized } from "./stream.js";
import { tiles } from "./tiles.js";
import { marks, waterfall } from "./waterfall.js";

const MINUTE = 60_000;
const TABLES_MS = 5 * MINUTE;
const RECENT_MS = 30 * MINUTE;
const KEPT_MS = 12 * 60 * MINUTE;
const RANGES = [[15, "15 min"], [60, "1 h"], [360, "6 h"], [720, "12 h"]];
/** Signals of the plot over hours. */
const SEGMENTS = ["rx.softirq", "rx.stack", "rx.socket", "rx.total", "tx.stack", "tx.qdisc", "tx.driver", "fwd.host", "net.rtt"];

const state = { frames: [], changes: [], status: null, range: 60, quantile: "p99", pinned: null, lastHeard: 0, lost: null };
let view = null;

// ---- What is shown ----

async function build() {
  const signals = await (await fetch("/assets/signals.json")).json();
  const colors = new Map(signals.map((signal) => [signal.name, signal.color]));
  const of = (frame, name) => frame.signals.find((row) => row.signal === name && row.scope === "all");
  const paint = (n) => ({ color: `c${n}`, stroke: `s${n}` });
  const quantile = (name, which) => (frame) => {
    const row = of(frame, name);
    return row && row.count > 0 ? marks(row)[which] : null;
  };
  const line = (name, n, get, more = {}) => ({ name, of: get, ...paint(n), ...more });
  const latency = { log: true, text: duration };
  const signal = (name) => line(name, colors.get(name), (frame) => quantile(name, state.quantile)(frame));
  const plot = (id, options) => new TimePlot(byId(id), options);
  plot("plot-latency", { title: "Latency by segment", what: "each window's quantile", height: () => (innerWidth > 1100 ? 500 : 320), series: SEGMENTS.map(signal), ...latency });
  plot("plot-dns-rate", {
    title: "Queries", what: "a second", text: rate,
    series: [line("queries", 16, (f) => f.dns.per_s, { fill: true }), line("timeouts", 13, (f) => perSecond(f, f.dns.timeouts), { fill: true, right: true })],
  });
  plot("plot-dns-latency", {
    title: "DNS latency", what: "query to answer", ...latency,
    series: [line("p50", 16, quantile("dns.latency", "p50"), { dash: [6, 4] }), line("p99", 16, quantile("dns.latency", "p99"))],
  });
  plot("plot-tcp-rate", {
    title: "Connections", what: "a second", text: rate, height: () => 180,
    series: [line("established", 1, (f) => f.tcp.connects_per_s), line("accepted", 8, (f) => f.tcp.accepts_per_s), line("failed", 13, (f) => perSecond(f, f.tcp.failures), { fill: true, right: true })],
  });
  plot("plot-tcp-loss", {
    title: "Segments sent again", what: "of all sent", text: percent, height: () => 180, floor: 0.001,
    series: [line("share", 12, (f) => f.tcp.retransmit_share, { fill: true })],
  });
  plot("plot-tcp-latency", {
    title: "Handshakes", what: "p99", height: () => 180, ...latency,
    series: [line("tcp.connect", 1, quantile("tcp.connect", "p99")), line("tcp.accept", 8, quantile("tcp.accept", "p99"))],
  });
  plot("plot-drops", { title: "Packets dropped", what: "a second", text: rate, series: [line("drops", 6, (f) => f.drops_per_s, { fill: true })] });
  plot("plot-cpu", {
    title: "Own cost, CPU", what: "of one CPU", text: percent, floor: 0.001,
    series: [line("nettrace", 1, (f) => f.cost.own_cpu_share), line("kernel programs", 5, (f) => f.cost.kernel_cpu_share)],
  });
  plot("plot-memory", {
    title: "Own cost, memory", what: "resident, and kernel maps", text: bytes, binary: true,
    series: [line("resident", 1, (f) => f.cost.rss_bytes), line("maps", 5, (f) => f.cost.map_bytes)],
  });
  view = {
    tiles: tiles(byId("tiles")),
    waterfall: waterfall(byId("waterfall"), byId("waterfall-table"), signals),
    tables: nodeTables(),
  };
}

const perSecond = (frame, n) => (frame.window_ms ? (1000 * n) / frame.window_ms : 0);

function show() {
  const last = state.frames.at(-1);
  if (!last || !view) return;
  const end = last.at_unix_ms;
  const from = end - state.range * MINUTE;
  const shown = state.frames.filter((frame) => frame.at_unix_ms >= from);
  showAll(shown, from / 1000, end / 1000, state.changes);
  const frames = state.pinned?.frames ?? state.frames.filter((frame) => frame.at_unix_ms > end - TABLES_MS);
  const frame = frames.at(-1);
  view.tiles(frame, state.pinned ? frames : state.frames);
  view.waterfall(frame, usual(shown));
  view.tables(frames);
  const age = `${duration(frame.window_ms * 1e6)} to ${clock(frame.at_unix_ms)}`;
  say(byId("now-when"), state.pinned ? `the ${age}, chosen` : `the last ${age}`);
}

/** The median p99 of each signal. */
function usual(frames) {
  const all = new Map();
  for (const row of frames.flatMap((frame) => frame.signals)) {
    if (row.scope !== "all" || !row.count) continue;
    if (!all.has(row.signal)) all.set(row.signal, []);
    all.get(row.signal).push(marks(row).p99);
  }
  const median = (values) => values.sort((a, b) => a - b)[Math.floor(values.length / 2)];
  // Of few windows nothing is usual.
  return new Map([...all].filter(([, v]) => v.length >= 6).map(([name, v]) => [name, median(v)]));
}

// ---- A chosen moment ----

async function pin(at) {
  if (!at) return;
  try {
    const frames = await json(`/api/frames?since=${at - TABLES_MS}&until=${at}`);
    if (!frames.length) return;
    state.pinned = { at, frames };
    show();
    pulse();
    byId("now").scrollIntoView({ block: "nearest" });
  } catch (error) {
    if (error instanceof Unauthorized) await login(error.message);
  }
}

function unpin() {
  state.pinned = null;
  show();
  pulse();
}

// ---- How it is going ----

function pulse() {
  const now = Date.now();
  const heard = state.lastHeard && now - state.lastHeard;
  const interval = state.status?.interval_ms ?? 5000;
  const stale = Boolean(state.lastHeard) && heard > Math.max(3 * interval, 10_000);
  const level = state.lost ? "gone" : stale ? "stale" : state.lastHeard ? "live" : "wait";
  const text = { gone: "agent gone", stale: `stale, ${span(heard)}`, live: `live, ${span(heard)} ago`, wait: "connecting" }[level];
  const node = byId("pulse");
  node.className = `pulse ${level}`;
  // Spoken only when the state differs: a clock that is read out every second is of no use.
  node.setAttribute("aria-live", node.dataset.level === level ? "off" : "polite");
  node.dataset.level = level;
  say(node.lastElementChild, text);
  const was = state.lastHeard ? `What is shown is of ${moment(state.frames.at(-1)?.at_unix_ms ?? state.lastHeard)}. ` : "";
  const banner = {
    gone: `The agent does not answer: it ended, or the way to it is broken. ${was}Trying again.`,
    stale: `The agent answers and closes no windows. ${was}Its log says why.`,
  }[level] ?? (state.pinned && `This is ${moment(state.pinned.frames.at(-1).at_unix_ms)}, not now: tiles, waterfall and tables show that moment.`);
  const bar = byId("banner");
  bar.hidden = !banner;
  bar.className = `page banner ${state.pinned && level === "live" ? "chosen" : "bad"}`;
  bar.querySelector("button").hidden = !state.pinned;
  if (banner) say(bar.firstElementChild, banner);
  document.documentElement.dataset.pulse = level;
}

// ---- What comes ----

function take(frame) {
  const last = state.frames.at(-1);
  if (last && frame.at_unix_ms <= last.at_unix_ms) return;
  state.frames.push(frame);
  state.lastHeard = Date.now();
  thin();
}

/** Keeps what the agent keeps: half an hour as it came, a minute apart before. */
function thin() {
  const end = state.frames.at(-1).at_unix_ms;
  let before = 0;
  state.frames = state.frames.filter(({ at_unix_ms: at }) => {
    if (at >= end - RECENT_MS) return true;
    if (at < end - KEPT_MS || at - before < MINUTE - 1000) return false;
    before = at;
    return true;
  });
}

async function load() {
  // The server's clock: of the latest frame it has, which the brief ones end with.
  const brief = await json("/api/frames?brief");
  const end = brief.at(-1)?.at_unix_ms ?? 0;
  const full = end ? await json(`/api/frames?since=${end - TABLES_MS}`) : [];
  const from = full[0]?.at_unix_ms ?? Infinity;
  state.frames = [...brief.filter((frame) => frame.at_unix_ms < from), ...full];
  show();
}

const events = {
  frame: (frame) => (take(frame), show()),
  status: (status) => ((state.status = status), showStatus(status, Date.now())),
  findings: showFindings,
  changes: (changes) => ((state.changes = changes), showChanges(changes), show()),
  missed: () => load(),
};

const on = {
  async open() {
    await load();
    state.lost = null;
    byId("forget").hidden = !token.get();
    pulse();
  },
  event(name, data) {
    events[name]?.(data);
    pulse();
  },
  lost(error) {
    state.lost = error;
    pulse();
  },
  unauthorized: () => login(token.get() ? "That token is not this agent's." : ""),
};

// ---- Token, theme, keys, forms ----

function login(text) {
  const dialog = byId("login");
  const form = dialog.querySelector("form");
  say(dialog.querySelector(".note"), text);
  if (!dialog.open) dialog.showModal();
  return new Promise((resolve) => {
    form.onsubmit = (event) => {
      event.preventDefault();
      token.set(form.elements.token.value.trim());
      form.reset();
      dialog.close();
      resolve();
    };
    dialog.oncancel = (event) => event.preventDefault();
  });
}

function theme() {
  const button = byId("theme");
  const root = document.documentElement;
  const next = { auto: "light", light: "dark", dark: "auto" };
  const set = (to) => {
    if (to === "auto") delete root.dataset.theme;
    else root.dataset.theme = to;
    say(button.querySelector("span"), to);
    localStorage.setItem("nettrace-theme", to);
    redrawAll();
  };
  const kept = localStorage.getItem("nettrace-theme");
  if (kept in next) set(kept);
  button.addEventListener("click", () => set(next[root.dataset.theme ?? "auto"]));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redrawAll);
}

function keys() {
  const range = choice(byId("range"), RANGES, state.range, (value) => ((state.range = value), show()));
  const quantile = choice(byId("quantile"), ["p50", "p90", "p99"].map((q) => [q, q]), state.quantile, (value) => ((state.quantile = value), show()));
  const dialog = byId("keys");
  const all = [
    ["1 2 3 4", "15 minutes, 1 hour, 6 hours, 12 hours", null],
    ["q", "next quantile: p50, p90, p99", () => quantile({ p50: "p90", p90: "p99", p99: "p50" }[state.quantile])],
    ["l", "back to live", unpin],
    ["f", "findings", () => byId("findings").scrollIntoView()],
    ["t", "theme", () => byId("theme").click()],
    ["?", "these keys", () => dialog.showModal()],
    ["\u2190 \u2192", "on a plot: read it, with Shift in steps of ten", null],
    ["Enter", "on a plot: show that moment", null],
    ["Esc", "close, or back to live", () => !dialog.open && unpin()],
  ];
  byId("keys-list").replaceChildren(...all.map(([key, text]) => el("div", {}, el("dt", {}, el("kbd", {}, key)), el("dd", {}, text))));
  byId("help").addEventListener("click", () => dialog.showModal());
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest?.("input, textarea, select, dialog");
    if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
    const chosen = RANGES[Number(event.key) - 1];
    if (chosen) return range(chosen[0]);
    const name = event.key === "Escape" ? "Esc" : event.key;
    const action = all.find(([key]) => key === name)?.[2];
    if (!action) return;
    event.preventDefault();
    action();
  });
}

function forms() {
  const history = byId("history");
  history.elements.from.value = field(Date.now() - 15 * MINUTE);
  history.elements.to.value = field(Date.now());
  history.addEventListener("submit", (event) => submitted(event, async (form) => {
    const [from, to] = ["from", "to"].map((name) => new Date(form.elements[name].value).getTime());
    // Saved as a file: a window of its own could send no token, and this page's policy would hold in it.
    const report = await (await ask(`/api/history?from=${from}&to=${to}`)).blob();
    const link = el("a", { href: URL.createObjectURL(report), download: `nettrace-${form.elements.from.value.replaceAll(":", "")}.html` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), MINUTE);
    return "The report was saved as a file.";
  }));
  byId("flight").addEventListener("submit", (event) => submitted(event, async (form) => {
    const reason = form.elements.reason.value.trim() || "asked for on the page";
    const headers = { "content-type": "application/json" };
    return (await ask("/api/flight", { method: "POST", headers, body: JSON.stringify({ reason }) })).text();
  }));
  byId("forget").addEventListener("click", () => {
    token.forget();
    location.reload();
  });
  byId("banner").querySelector("button").addEventListener("click", unpin);
}

async function submitted(event, work) {
  event.preventDefault();
  const note = event.target.querySelector(".note");
  say(note, "\u2026");
  try {
    say(note, (await work(event.target)).trim());
  } catch (error) {
    say(note, error.message);
    if (error instanceof Unauthorized) await login(error.message);
  }
}

document.documentElement.classList.add("js");
await build();
theme();
keys();
forms();
whenPicked(pin);
setInterval(pulse, 1000);
follow(on);
