// Numbers with their units, as the reports write them: three significant digits.

function significant(value) {
  const size = Math.abs(value);
  if (size === 0) return "0";
  if (size >= 999.5) return Math.round(value).toLocaleString("en-US");
  if (size >= 99.95) return value.toFixed(0);
  if (size >= 9.995) return value.toFixed(1);
  if (size >= 0.0995) return value.toFixed(2);
  return value.toFixed(3);
}

function scaled(value, steps) {
  let rest = value;
  for (const [i, [unit, step]] of steps.entries()) {
    if (rest < step - 0.5) return `${i === 0 && Number.isInteger(value) ? rest : significant(rest)} ${unit}`;
    rest /= step;
  }
  return "-";
}

const known = (value) => typeof value === "number" && Number.isFinite(value);

/** `840 ns`, `1.20 us`, `41.0 ms`. */
export const duration = (ns) =>
  known(ns) ? scaled(ns, [["ns", 1e3], ["us", 1e3], ["ms", 1e3], ["s", Infinity]]) : "-";

/** Any of these without digits that say nothing, for axes: `10 us`, `80/s`. */
export const tidy = (text) => text.replace(/(\.\d*?)0+(?=\D|$)/, "$1").replace(/\.(?=\D|$)/, "");

/** A power of ten of a time: `10 us`. */
export const decade = (ns) => tidy(duration(ns));

/** `66 B`, `21.0 MiB`. */
export const bytes = (n) =>
  known(n) ? scaled(n, [["B", 1024], ["KiB", 1024], ["MiB", 1024], ["GiB", 1024], ["TiB", Infinity]]) : "-";

/** `84,210`. */
export const count = (n) => (known(n) ? Math.round(n).toLocaleString("en-US") : "-");

/** `7.13/s`. */
export const rate = (n) => (known(n) ? `${significant(n)}/s` : "-");

/** A share as `0.31 %`. */
export function percent(share) {
  if (!known(share)) return "-";
  const value = share * 100;
  return value !== 0 && Math.abs(value) < 0.01 ? "<0.01 %" : `${significant(value)} %`;
}

export const plural = (n, one, many) => `${count(n)} ${n === 1 ? one : many}`;

const two = (n) => String(n).padStart(2, "0");

/** `03:12` or `03:12:07`. */
export function clock(ms, seconds = true) {
  const at = new Date(ms);
  return `${two(at.getHours())}:${two(at.getMinutes())}${seconds ? `:${two(at.getSeconds())}` : ""}`;
}

/** `2026-11-26 03:12:07`. */
export function moment(ms) {
  const at = new Date(ms);
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${clock(ms)}`;
}

/** What a field of type datetime-local holds. */
export const field = (ms) => moment(ms).replace(" ", "T").slice(0, 16);

/** `12 s`, `3 min`, `5 h`, `2 d`. */
export function span(ms) {
  const s = Math.max(0, Math.round(ms / 1000));
  if (s < 100) return `${s} s`;
  if (s < 6000) return `${Math.round(s / 60)} min`;
  if (s < 172800) return `${Math.round(s / 3600)} h`;
  return `${Math.round(s / 86400)} d`;
}
