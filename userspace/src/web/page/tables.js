// Tables that sort, keep their order and the focus while their rows are written anew, and say so when they are empty.
import { clean, el } from "./dom.js";

/**
 * A table in a host element. Columns are `{ title, of(row), text(value), number }`; `of` yields what is sorted by.
 * Yields a function that shows rows.
 */
export function table(host, { caption, columns, empty, order = null, rows: most = 10 }) {
  let sorted = order;
  let latest = [];
  const body = el("tbody");
  const heads = columns.map((column, i) => {
    const button = el("button", { type: "button", onclick: () => sort(i) }, column.title);
    return el("th", { scope: "col", class: column.number && "number" }, button);
  });
  const note = el("p", { class: "none" }, empty);
  const whole = el("table", {}, el("caption", {}, caption), el("thead", {}, el("tr", {}, heads)), body);
  const scroll = el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption }, whole);
  const title = el("h3", {}, caption);
  host.replaceChildren(title, note, scroll);

  function sort(i) {
    const first = columns[i].number ? -1 : 1;
    sorted = sorted && sorted[0] === i ? [i, -sorted[1]] : [i, first];
    write();
  }

  function write() {
    let rows = latest;
    if (sorted) {
      const [i, sign] = sorted;
      rows = [...rows].sort((a, b) => sign * compare(columns[i].of(a), columns[i].of(b)));
      heads.forEach((head, k) => {
        if (k === i) head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
        else head.removeAttribute("aria-sort");
      });
    }
    note.hidden = rows.length > 0;
    title.hidden = rows.length > 0;
    scroll.hidden = rows.length === 0;
    body.replaceChildren(
      ...rows.slice(0, most).map((row) => {
        const cells = columns.map((column) => {
          const value = column.of(row);
          const text = column.text ? column.text(value, row) : clean(value);
          const kind = [column.number && "number", column.kind, column.bad?.(value, row) && "bad"].filter(Boolean).join(" ");
          return el("td", { class: kind || null }, el("span", { title: text.length > 30 && text }, text));
        });
        return el("tr", {}, cells);
      }),
    );
  }

  return (rows) => {
    latest = rows;
    write();
  };
}

function compare(a, b) {
  if (typeof a === "number" || typeof b === "number") return (a ?? -1) - (b ?? -1);
  return String(a).localeCompare(String(b), undefined, { numeric: true });
}

/** Adds rows of several windows up that have the same key; `add(sum, row)` changes the first. */
export function merged(lists, key, add) {
  const sums = new Map();
  for (const row of lists.flat()) {
    const name = key(row);
    const sum = sums.get(name);
    if (sum) add(sum, row);
    else sums.set(name, { ...row });
  }
  return [...sums.values()];
}
