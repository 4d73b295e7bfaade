"""The page at ``/``: ask as a user, see the answer with titles and reasons, the release and where the time went.

It is one file that needs no network but the service itself, and can be used with the keyboard alone.
"""

from __future__ import annotations

from raycl.pages.style import STYLE

POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:"
"""It loads nothing from elsewhere, and speaks to nobody else."""

_STYLE = """
form { display: grid; gap: .75rem; }
label { display: grid; gap: .25rem; font-weight: 600; }
label small { font-weight: 400; color: var(--muted); }
input, select { font: inherit; color: inherit; background: var(--page); border: 1px solid var(--line);
  border-radius: 6px; padding: .4rem .6rem; width: 100%; }
.row { display: grid; gap: .75rem; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); align-items: end; }
.check { display: flex; gap: .5rem; align-items: center; font-weight: 400; }
.check input { width: auto; }
button { font: inherit; color: var(--page); background: var(--first); border: 0; border-radius: 6px;
  padding: .45rem 1rem; cursor: pointer; }
button.plain { color: var(--first); background: none; padding: 0 .25rem; }
:focus-visible { outline: 3px solid var(--second); outline-offset: 2px; }
ul.history { display: flex; flex-wrap: wrap; gap: .4rem; margin: 0; padding: 0; list-style: none; }
ul.history li { border: 1px solid var(--line); border-radius: 6px; padding: .1rem .5rem; }
.problem { color: var(--second); font-weight: 600; }
.bar { display: inline-block; height: .6rem; background: var(--third); vertical-align: middle; border-radius: 2px; }
[hidden] { display: none !important; }
"""

_BODY = """
<header><h1>raycl</h1><p id="release">...</p></header>
<section aria-labelledby="ask-title"><h2 id="ask-title">Ask</h2>
<form id="ask">
  <div class="row">
    <label for="user_id">User id <small>events posted for this user count</small>
      <input id="user_id" autocomplete="off"/></label>
    <label for="token">Token <small>where the service asks for one</small>
      <input id="token" type="password" autocomplete="off"/></label>
  </div>
  <label for="item">Item ids of the history, the newest last <small>Enter adds them, commas part them</small>
    <input id="item" autocomplete="off"/></label>
  <ul class="history" id="history" aria-label="History"></ul>
  <div class="row">
    <label for="features">What is known of the user <small>JSON</small>
      <input id="features" autocomplete="off" placeholder='{"country": "pe"}'/></label>
    <label for="filter">Filter <small>JSON</small>
      <input id="filter" autocomplete="off" placeholder='{"op": "eq", "column": "category", "value": "tea"}'/></label>
  </div>
  <div class="row">
    <label for="k">How many <input id="k" type="number" min="1" value="10"/></label>
    <label for="method">Diversity <select id="method"><option value="">none</option><option value="mmr">MMR</option>
      <option value="dpp">DPP</option></select></label>
    <label class="check" for="explain"><input id="explain" type="checkbox" checked="checked"/> reasons</label>
    <button type="submit">Ask</button>
  </div>
</form>
<p class="problem" id="problem" role="alert" hidden="hidden"></p></section>
<section id="answered" aria-labelledby="answer-title" hidden="hidden"><h2 id="answer-title" tabindex="-1">Answer</h2>
<p class="note" id="told" role="status"></p>
<div class="table"><table><thead><tr><th scope="col">Item</th><th scope="col">Title</th><th scope="col">Score</th>
<th scope="col">Shown</th><th scope="col">Reasons</th><th scope="col">Add</th></tr></thead><tbody id="items"></tbody>
</table></div>
<h3>Where the time went</h3><div class="table"><table><thead><tr><th scope="col">Phase</th><th scope="col">ms</th>
<th scope="col"></th></tr></thead><tbody id="phases"></tbody></table></div></section>
"""

_SCRIPT = """
"use strict";
const at = (id) => document.getElementById(id);
const history_ = [];
const element = (name, text, more) => Object.assign(document.createElement(name), {textContent: text, ...more});
const idOf = (text) => /^-?[0-9]{1,15}$/.test(text) && String(Number(text)) === text ? Number(text) : text;
const headers = () => ({"content-type": "application/json",
  ...(at("token").value ? {authorization: "Bearer " + at("token").value} : {})});

function drawHistory() {
  at("history").replaceChildren(...history_.map((one, place) => {
    const line = element("li", String(one) + " ");
    const remove = element("button", "\\u00d7", {type: "button", className: "plain"});
    remove.setAttribute("aria-label", "Remove " + one);
    remove.addEventListener("click", () => { history_.splice(place, 1); drawHistory(); at("item").focus(); });
    line.append(remove);
    return line;
  }));
}

function add(text) {
  for (const part of text.split(",").map((one) => one.trim()).filter(Boolean)) history_.push(idOf(part));
  drawHistory();
}

function json(id) {
  const text = at(id).value.trim();
  if (!text) return undefined;
  try { return JSON.parse(text); } catch (error) { throw new Error(id + ": this is no JSON (" + error.message + ")"); }
}

function query() {
  const asked = {history: [...history_], k: Number(at("k").value), explain: at("explain").checked};
  if (at("user_id").value.trim()) asked.user_id = at("user_id").value.trim();
  const features = json("features"), filter = json("filter");
  if (features !== undefined) asked.user = features;
  if (filter !== undefined) asked.filter = filter;
  if (at("method").value) asked.diversity = {method: at("method").value};
  return asked;
}

function shown(values) {
  return Object.entries(values).map(([name, value]) => name + ": " +
    (value !== null && typeof value === "object" ? JSON.stringify(value) : String(value))).join(", ");
}

function reasons(one) {
  const cell = element("td", "");
  if (!one.reasons) return cell;
  const list = element("ul", "");
  list.append(element("li", "without any event: " + one.reasons.empty_history.toFixed(4)));
  for (const reason of one.reasons.events) list.append(element("li", reason.item_id + ": " + reason.value.toFixed(4)));
  cell.append(list);
  return cell;
}

function draw(answer, milliseconds) {
  at("items").replaceChildren(...answer.items.map((one) => {
    const row = element("tr", "");
    row.append(element("th", String(one.item_id), {scope: "row"}), element("td", one.title ?? "\\u2013"),
      element("td", one.score.toFixed(4) + (one.explored ? " (by chance)" : "")), element("td", shown(one.display)),
      reasons(one));
    const cell = element("td", ""), more = element("button", "+", {type: "button", className: "plain"});
    more.setAttribute("aria-label", "Add " + one.item_id + " to the history");
    more.addEventListener("click", () => { history_.push(one.item_id); drawHistory(); at("item").focus(); });
    cell.append(more);
    row.append(cell);
    return row;
  }));
  at("told").textContent = [answer.items.length + " of " + answer.matched + " that match", "by " + answer.basis,
    answer.short ? "short" : "", answer.degraded.length ? "degraded: " + answer.degraded.join(", ") : "",
    answer.unknown_history ? answer.unknown_history + " ids of the history are not known" : "",
    "release " + answer.release].filter(Boolean).join(" \\u00b7 ");
  const most = Math.max(...milliseconds.map((one) => one[1]), 0.001);
  at("phases").replaceChildren(...milliseconds.map(([name, value]) => {
    const row = element("tr", ""), cell = element("td", ""), bar = element("span", "", {className: "bar"});
    bar.style.width = (8 * value / most) + "rem";
    cell.append(bar);
    row.append(element("th", name, {scope: "row"}), element("td", value.toFixed(2)), cell);
    return row;
  }));
  at("answered").hidden = false;
  at("answer-title").focus();
}

function told(body) {
  if (typeof body.detail === "string") return body.detail;
  return (body.detail ?? []).map((one) => one.loc.slice(1).join(".") + ": " + one.msg).join("; ");
}

async function ask() {
  at("problem").hidden = true;
  try {
    const began = performance.now();
    const response = await fetch("v1/retrieve",
      {method: "POST", headers: {...headers(), "x-request-timing": "1"}, body: JSON.stringify(query())});
    const body = await response.json(), whole = performance.now() - began;
    if (!response.ok) throw new Error(response.status + ": " + told(body));
    const parts = (response.headers.get("server-timing") ?? "").split(",").map((one) => one.trim()).filter(Boolean)
      .map((one) => one.split(";dur=")).map(([name, value]) => [name, Number(value)]);
    draw(body, [...parts, ["seen from here", whole]]);
  } catch (error) {
    at("problem").textContent = error.message;
    at("problem").hidden = false;
  }
}

async function release() {
  try {
    const [body, gate] = await Promise.all(["v1/release", "v1/quality"].map(
      async (path) => (await fetch(path, {headers: headers()})).json()));
    const quality = Object.entries(gate.measured ?? {}).map(([name, value]) =>
      name.replaceAll("_", " ") + " " + Number(value.toPrecision(4)));
    at("release").textContent = [body.release ? "release " + body.release : told(body) || "no release yet", ...quality,
      body.problem ?? ""].filter(Boolean).join(" \\u00b7 ");
  } catch (error) { at("release").textContent = error.message; }
}

at("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  if (at("item").value.trim()) { add(at("item").value); at("item").value = ""; }
  ask();
});
at("item").addEventListener("keydown", (event) => {
  if (event.key === "Enter") { event.preventDefault(); add(at("item").value); at("item").value = ""; }
});
at("token").addEventListener("change", release);
release();
"""


def page() -> str:
    """The whole page."""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"/>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>'
        '<meta name="color-scheme" content="light dark"/><title>raycl</title>'
        f'<link rel="icon" href="data:,"/><style>{STYLE}{_STYLE}</style></head>\n<body><main>{_BODY}</main>'
        f"<script>{_SCRIPT}</script></body></html>\n"
    )
