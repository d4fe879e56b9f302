// Changes that nettrace made on this node, newest first.
import { byId, clean, el } from "./dom.js";
import { command } from "./findings.js";
import { moment } from "./format.js";

function row(change) {
  return el(
    "li",
    { class: change.active ? "active" : "undone" },
    el("time", { datetime: new Date(change.at_unix_ms).toISOString() }, moment(change.at_unix_ms)),
    el("div", {},
      el("p", {}, el("b", {}, clean(change.id)), el("span", { class: "state" }, change.active ? "in force" : "undone"), ` ${clean(change.why)}`),
      el("ul", {}, change.steps.map((step) => el("li", {}, el("code", {}, clean(step))))),
      change.active && el("details", { class: "data" }, el("summary", {}, "Take it back"), command(`nettrace undo ${change.change}`))),
  );
}

/** Shows them. */
export function showChanges(changes) {
  const list = [...changes].reverse().slice(0, 50).map(row);
  byId("changes-list").replaceChildren(
    list.length ? el("ol", { class: "changes" }, list) : el("p", { class: "none" }, "nettrace changed nothing on this node."),
  );
}
