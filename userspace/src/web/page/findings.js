// Findings: what is to be changed, why, and exactly how. Those that call for nothing are folded away.
import { byId, clean, el, say } from "./dom.js";
import { plural } from "./format.js";

const VERDICTS = { apply: "apply", consider: "consider", "not-needed": "not needed", "cannot-tell": "cannot tell" };
const URGENT = ["apply", "consider"];

/** Text that can be taken along with a button. */
export function command(text) {
  const button = el("button", { type: "button", class: "chip copy" }, "Copy");
  button.addEventListener("click", async () => {
    // Only pages that came over TLS or from localhost may use the clipboard.
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      const selection = getSelection();
      selection.selectAllChildren(code);
      button.textContent = "Selected";
    }
    setTimeout(() => (button.textContent = "Copy"), 2000);
  });
  const code = el("code", {}, clean(text));
  return el("div", { class: "command" }, el("pre", { tabindex: "0", "aria-label": "Command" }, code), button);
}

function pairs(rows) {
  const known = rows.filter(([, value]) => value);
  return el("dl", { class: "pairs" }, known.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, clean(value)))));
}

function evidence({ id, evidence: rows }) {
  if (!rows.length) return null;
  const line = (row) =>
    el("tr", {}, el("th", { scope: "row" }, clean(row.what)), el("td", {}, clean(row.value)), el("td", {}, row.threshold ? `from ${clean(row.threshold)} on` : ""));
  const head = el("thead", {}, el("tr", {}, ["Measured", "Value", "Counts"].map((title) => el("th", { scope: "col" }, title))));
  return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `Evidence of ${id}` },
    el("table", { class: "evidence" }, head, el("tbody", {}, rows.map(line))));
}

/** A word as a shell takes it. */
const quoted = (word) => `'${word.replaceAll("'", "'\\''")}'`;

function change(one) {
  return el(
    "div",
    { class: "change" },
    el("p", { class: "where" }, `In ${clean(one.scope)}`, one.owner && `; ${clean(one.owner)} sets it otherwise`),
    command(one.setting ? `nettrace apply --set ${quoted(one.setting)}` : one.apply),
    one.setting && el("p", { class: "note" }, "By hand: ", el("code", {}, clean(one.apply))),
    el("p", { class: "note" }, "Undone by: ", el("code", {}, clean(one.undo))),
  );
}

function card(finding) {
  return el(
    "article",
    { class: `finding ${finding.verdict}`, "aria-label": finding.id },
    el("h3", {}, el("span", { class: "verdict" }, VERDICTS[finding.verdict] ?? finding.verdict), clean(finding.advice)),
    el("p", { class: "because" }, clean(finding.because)),
    evidence(finding),
    finding.changes.map(change),
    finding.to_tell && el("div", { class: "change" }, el("p", { class: "where" }, "To be able to tell"), command(finding.to_tell)),
    pairs([
      ["Expected", finding.effect],
      ["Confidence", finding.confidence],
      ["Risk", finding.risk],
      ["Not when", finding.when_not],
      ["More", finding.source],
      ["Rule", finding.id],
    ]),
  );
}

function folded(verdict, findings) {
  if (!findings.length) return null;
  const rows = findings.map((finding) =>
    el("li", {}, el("b", {}, clean(finding.advice)), ` ${clean(finding.because)} `,
      finding.to_tell && el("code", {}, clean(finding.to_tell))));
  return el("details", { class: "folded" },
    el("summary", {}, `${VERDICTS[verdict]}: ${plural(findings.length, "rule", "rules")}`), el("ul", {}, rows));
}

/** Shows the advice of the agent. */
export function showFindings(advice) {
  const of = (verdict) => advice.findings.filter((finding) => finding.verdict === verdict);
  const urgent = URGENT.flatMap(of);
  const [apply, consider] = URGENT.map((verdict) => of(verdict).length);
  say(byId("findings-line"), `${apply} to apply, ${consider} to consider, of ${plural(advice.findings.length, "rule", "rules")}`);
  const badge = byId("urgent");
  badge.hidden = urgent.length === 0;
  badge.className = apply ? "badge bad" : "badge";
  say(badge, String(urgent.length));
  badge.setAttribute("aria-label", `${urgent.length} that call for something`);
  const empty = advice.findings.length
    ? "Nothing is to be changed: what was measured calls for none of the usual settings."
    : "No advice yet: it is made of the last minutes.";
  byId("findings-list").replaceChildren(
    ...(urgent.length ? urgent.map(card) : [el("p", { class: "none" }, empty)]),
    ...["cannot-tell", "not-needed"].map((verdict) => folded(verdict, of(verdict))).filter(Boolean),
  );
}
