"use strict";
// Theme, sortable tables and the percentile plot's reading line. Everything is readable without this script.
const root = document.documentElement;
root.classList.add("js");

function theme() {
  const button = document.getElementById("theme");
  const next = { auto: "light", light: "dark", dark: "auto" };
  button.addEventListener("click", () => {
    const to = next[root.dataset.theme || "auto"];
    if (to === "auto") delete root.dataset.theme;
    else root.dataset.theme = to;
    button.querySelector("span").textContent = to;
  });
}

// A cell sorts by its number where it has one, else by its text.
function key(row, column) {
  const cell = row.cells[column];
  return cell.dataset.sort === undefined ? cell.textContent : Number(cell.dataset.sort);
}

function compare(a, b) {
  if (typeof a === "number" && typeof b === "number") return a - b;
  return String(a).localeCompare(String(b), undefined, { numeric: true });
}

function sortable(table) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const first = head.classList.contains("number") ? "descending" : "ascending";
      const other = first === "ascending" ? "descending" : "ascending";
      const order = head.getAttribute("aria-sort") === first ? other : first;
      heads.forEach((h) => h.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      const body = table.tBodies[0];
      const rows = [...body.rows].sort((a, b) => sign * compare(key(a, column), key(b, column)));
      body.append(...rows);
    });
  });
}

function curves(plot) {
  const stops = plot.dataset.stops.split("|");
  const paths = [...plot.querySelectorAll(".curve")];
  const buttons = [...document.querySelectorAll(".legend button")];
  const all = document.getElementById("toggle-all");
  const reading = document.getElementById("reading");
  const values = paths.map((path) => path.dataset.values.split("|"));
  const heights = paths.map((path) => path.dataset.heights.split("|"));
  const dots = paths.map((path) => {
    const dot = document.createElementNS("http://www.w3.org/2000/svg", "line");
    dot.setAttribute("class", path.getAttribute("class").replace("curve", "dot"));
    plot.append(dot);
    return dot;
  });
  let at = Number(plot.dataset.first);

  function read(stop) {
    at = Math.max(0, Math.min(stops.length - 1, stop));
    const x = (1000 * at) / (stops.length - 1);
    reading.setAttribute("x1", x);
    reading.setAttribute("x2", x);
    document.getElementById("stop").textContent = stops[at];
    buttons.forEach((button, i) => {
      const known = at < values[i].length;
      button.querySelector("b").textContent = known ? values[i][at] : "-";
      dots[i].style.visibility = known ? "visible" : "hidden";
      if (!known) return;
      const end = { x1: x, x2: x, y1: heights[i][at], y2: heights[i][at] };
      for (const name in end) dots[i].setAttribute(name, end[name]);
    });
  }

  function show(i, on) {
    buttons[i].setAttribute("aria-pressed", on);
    paths[i].classList.toggle("off", !on);
    dots[i].classList.toggle("off", !on);
    const any = buttons.some((b) => b.getAttribute("aria-pressed") === "true");
    all.textContent = any ? "Hide all" : "Show all";
    all.setAttribute("aria-pressed", any);
  }

  function pick(i, on) {
    plot.classList.toggle("picked", on && !paths[i].classList.contains("off"));
    paths[i].classList.toggle("pick", on);
  }

  plot.addEventListener("pointermove", (event) => {
    const box = plot.getBoundingClientRect();
    read(Math.round(((event.clientX - box.left) / box.width) * (stops.length - 1)));
  });
  plot.addEventListener("keydown", (event) => {
    const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: stops.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    read(to);
  });
  buttons.forEach((button, i) => {
    button.addEventListener("click", () => {
      show(i, button.getAttribute("aria-pressed") !== "true");
      pick(i, false);
    });
    for (const enter of ["pointerenter", "focus"]) button.addEventListener(enter, () => pick(i, true));
    for (const leave of ["pointerleave", "blur"]) button.addEventListener(leave, () => pick(i, false));
  });
  all.addEventListener("click", () => {
    const on = all.getAttribute("aria-pressed") !== "true";
    buttons.forEach((_, i) => show(i, on));
  });
  read(at);
}

theme();
document.querySelectorAll("table").forEach(sortable);
const plot = document.getElementById("curves");
if (plot) curves(plot);
