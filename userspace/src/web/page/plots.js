// Plots over time: uPlot draws them; legends, the reading line, marks of changes and the table behind are ours.
import { clean, color, el, forgetColors, say } from "./dom.js";
import { clock, moment, tidy } from "./format.js";
import { table } from "./tables.js";

const FONT = '12px system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif';
/** Between frames further apart than this nothing is drawn, s: they are a minute apart when they are old. */
const GAP_S = 200;
/** Steps of an axis of bytes. */
const BINARY = Array.from({ length: 44 }, (_, i) => 2 ** i);
const sync = () => uPlot.sync("time");

/** All plots; they share range, reading line and marks. */
export const plots = [];
let range = [0, 1];
let marks = [];
let onPick = () => {};

/** What happens when a moment is chosen, Unix time, ms. */
export const whenPicked = (then) => (onPick = then);

/** Shows frames of a range of time (s) in all plots. */
export function showAll(frames, from, to, changes) {
  range = [from, to];
  marks = changes;
  for (const plot of plots) plot.show(frames);
}

/** Draws all of them anew, as when colours changed. */
export function redrawAll() {
  forgetColors();
  for (const plot of plots) plot.redraw();
}

/**
 * A plot in a host element. `series` are `{ name, color, of(frame), dash }`, whose values `text` writes; those
 * that are `right` have the axis there. `log` is for latencies, `binary` for bytes.
 */
export class TimePlot {
  constructor(host, { title, what, series, text, log = false, binary = false, height = () => 200, floor = 1 }) {
    Object.assign(this, { series, text, log, binary, floor, height });
    this.host = el("div", { class: "canvas" });
    this.frames = [];
    this.at = null;
    this.box = el("div", {
      class: "plot", tabindex: "0", role: "slider", "aria-label": `${title}: ${what}. Arrow keys read it, Enter shows that moment`,
      "aria-valuemin": "0", "aria-valuemax": "0", "aria-valuenow": "0", "aria-valuetext": "nothing yet",
    }, this.host);
    this.when = el("b", { class: "stop" }, "now");
    this.buttons = series.map((one, i) => {
      const value = el("b", {}, "-");
      const button = el("button", { type: "button", class: `${one.color}${one.right ? " right" : ""}`, "aria-pressed": "true", onclick: () => this.toggle(i) },
        el("i", { class: one.dash && "dash" }), el("span", {}, one.name), value);
      return { button, value };
    });
    const legend = el("div", { class: "legend", role: "group", "aria-label": `Shown in ${title}` }, this.buttons.map((b) => b.button));
    const behind = el("div");
    this.details = el("details", { class: "data", ontoggle: () => this.tabulate() }, el("summary", {}, "Values as a table"), behind);
    this.fillTable = table(behind, {
      caption: title, empty: "Nothing yet.", rows: 60,
      columns: [
        { title: "Time", of: (frame) => frame.at_unix_ms, text: moment, kind: "time" },
        ...series.map((one) => ({ title: one.name, of: one.of, text: (v) => (v === null ? "-" : text(v)), number: true })),
      ],
    });
    this.none = el("p", { class: "none" }, "Nothing in this range yet.");
    host.replaceChildren(el("figure", { class: "time" },
      el("figcaption", {}, el("b", {}, title), ` ${what} `, this.when), this.box, this.none, legend, this.details));
    this.plot = new uPlot(this.options(), this.data(), this.host);
    new ResizeObserver(() => this.fit()).observe(this.box);
    this.box.addEventListener("keydown", (event) => this.key(event));
    this.box.addEventListener("click", () => this.at !== null && onPick(this.frames[this.at]?.at_unix_ms));
    plots.push(this);
  }

  options() {
    const soft = () => color("soft");
    const line = { stroke: () => color("line"), width: 1 };
    const axis = { stroke: soft, font: FONT, grid: line, ticks: { show: false } };
    const linear = { range: (_, __, max) => [0, max > 0 ? max * 1.08 : this.floor] };
    const y = this.log ? { distr: 3, range: (_, min, max) => decades(min, max) } : linear;
    const right = this.series.find((one) => one.right);
    const values = (_, splits) => splits.map((value) => (value === null ? "" : tidy(this.text(value))));
    return {
      width: 300, height: this.height(), legend: { show: false }, pxAlign: 1, padding: [8, 8, 0, 0],
      cursor: { sync: { key: sync().key }, drag: { x: false, y: false, setScale: false }, y: false, points: { size: 7 } },
      scales: { x: { time: true, range: () => range }, y, ...(right && { right: linear }) },
      axes: [
        { ...axis, size: 26, gap: 4, space: 70, values: (_, splits) => splits.map((s) => clock(s * 1000, false)) },
        {
          ...axis, size: 66, gap: 6, space: 34,
          ...(this.log && { splits: (_, __, min, max) => powers(min, max) }),
          ...(this.binary && { incrs: BINARY }),
          values,
        },
        ...(right ? [{ ...axis, scale: "right", side: 1, size: 58, gap: 6, space: 34, grid: { show: false }, values }] : []),
      ],
      series: [{}, ...this.series.map((one) => ({
        label: one.name, scale: one.right ? "right" : "y", stroke: () => color(one.stroke), width: 1.75, dash: one.dash, points: { show: false }, spanGaps: false,
        fill: one.fill && (() => veil(one.stroke)),
      }))],
      hooks: { draw: [(u) => drawMarks(u)], setCursor: [(u) => this.read(u.cursor.idx ?? null)] },
    };
  }

  data() {
    const columns = [[], ...this.series.map(() => [])];
    const value = (one, frame) => {
      const v = one.of(frame);
      return v === undefined || v === null || (this.log && v <= 0) ? null : v;
    };
    this.index = [];
    let before = null;
    this.frames.forEach((frame, i) => {
      const at = frame.at_unix_ms / 1000;
      if (before !== null && at - before > GAP_S) {
        columns[0].push(before + 1);
        columns.slice(1).forEach((column) => column.push(null));
        this.index.push(i - 1);
      }
      before = at;
      columns[0].push(at);
      this.series.forEach((one, k) => columns[k + 1].push(value(one, frame)));
      this.index.push(i);
    });
    return columns;
  }

  show(frames) {
    this.frames = frames;
    const data = this.data();
    const any = data.slice(1).some((column) => column.some((v) => v !== null));
    this.none.hidden = any;
    this.plot.setData(data);
    this.box.setAttribute("aria-valuemax", String(Math.max(0, frames.length - 1)));
    if (this.plot.cursor.left < 0 || this.at === null) this.read(null);
    if (this.details.open) this.tabulate();
  }

  fit() {
    const width = Math.floor(this.box.clientWidth);
    const height = this.height();
    if (width > 0 && (width !== this.plot.width || height !== this.plot.height)) this.plot.setSize({ width, height });
  }

  redraw() {
    this.plot.redraw(false);
  }

  toggle(i) {
    const { button } = this.buttons[i];
    const on = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(on));
    this.plot.setSeries(i + 1, { show: on });
  }

  /** The values under the reading line, or the latest. */
  read(idx) {
    const last = this.frames.length - 1;
    this.at = idx === null || this.index?.[idx] === undefined ? null : this.index[idx];
    const frame = this.frames[this.at ?? last];
    say(this.when, this.at === null || !frame ? "now" : clock(frame.at_unix_ms));
    const values = this.series.map((one, i) => {
      const v = frame && one.of(frame);
      const shown = v === null || v === undefined ? "-" : this.text(v);
      say(this.buttons[i].value, shown);
      return `${one.name} ${shown}`;
    });
    if (!frame) return;
    this.box.setAttribute("aria-valuenow", String(this.at ?? last));
    this.box.setAttribute("aria-valuetext", `${clock(frame.at_unix_ms)}: ${values.join(", ")}`);
  }

  key(event) {
    const last = this.frames.length - 1;
    const at = this.at ?? last;
    const step = event.shiftKey ? 10 : 1;
    const to = {
      ArrowLeft: at - step, ArrowDown: at - step, ArrowRight: at + step, ArrowUp: at + step,
      PageDown: at - 60, PageUp: at + 60, Home: 0, End: last,
    }[event.key];
    if (event.key === "Enter" && this.frames[at]) return onPick(this.frames[at].at_unix_ms);
    if (to === undefined || last < 0) return;
    event.preventDefault();
    const frame = Math.max(0, Math.min(last, to));
    const left = this.plot.valToPos(this.frames[frame].at_unix_ms / 1000, "x");
    this.plot.setCursor({ left, top: 10 });
    this.read(this.index.indexOf(frame));
  }

  /** A dozen values over the range, newest first. */
  tabulate() {
    if (!this.details.open) return;
    const step = Math.max(1, Math.ceil(this.frames.length / 12));
    this.fillTable([...this.frames].reverse().filter((_, i) => i % step === 0));
  }
}

/** Whole decades around the values. */
function decades(min, max) {
  if (!(min > 0) || !(max > 0)) return [1e3, 1e6];
  const low = Math.floor(Math.log10(min));
  const high = Math.ceil(Math.log10(max));
  return [10 ** low, 10 ** Math.max(high, low + 1)];
}

function powers(min, max) {
  const all = [];
  for (let e = Math.round(Math.log10(min)); e <= Math.round(Math.log10(max)); e++) all.push(10 ** e);
  return all;
}

function veil(name) {
  const [r, g, b] = color(name).match(/[\d.]+/g) ?? [0, 0, 0];
  return `rgba(${r}, ${g}, ${b}, 0.14)`;
}

/** A line with a flag where a change was made. */
function drawMarks(u) {
  const { ctx, bbox } = u;
  ctx.save();
  ctx.strokeStyle = color("accent");
  ctx.fillStyle = color("accent");
  ctx.lineWidth = devicePixelRatio;
  ctx.setLineDash([4 * devicePixelRatio, 3 * devicePixelRatio]);
  for (const mark of marks) {
    const x = Math.round(u.valToPos(mark.at_unix_ms / 1000, "x", true));
    if (x < bbox.left || x > bbox.left + bbox.width) continue;
    ctx.beginPath();
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
    const size = 5 * devicePixelRatio;
    ctx.beginPath();
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x + 1.6 * size, bbox.top + size);
    ctx.lineTo(x, bbox.top + 2 * size);
    ctx.fill();
  }
  ctx.restore();
}

/** A group of buttons of which one is pressed. */
export function choice(host, options, chosen, then) {
  const buttons = options.map(([value, label]) =>
    el("button", { type: "button", "aria-pressed": String(value === chosen), onclick: () => pick(value) }, clean(label)));
  host.replaceChildren(...buttons);
  function pick(value) {
    buttons.forEach((button, i) => button.setAttribute("aria-pressed", String(options[i][0] === value)));
    then(value);
  }
  return pick;
}
