"use strict";
// The responses: tokens of one route and weight are one element; a token is found by its characters.

const BUCKETS = 24; // shades that are told apart where weights differ by token
const NO_ROUTE = -1;
const shown = new Map(); // row -> segments of a response that is drawn
let shadedBy = -1; // a loss, or -1: all

const lossesShaded = (route) => DATA.routes[route].losses.filter((l) => shadedBy < 0 || l.index === shadedBy);

/** From 0 to 1: how strongly a route trains its tokens; undefined where that differs by token, null if unknown. */
function commonStrength(route, stop) {
  let sum = 0;
  for (const loss of lossesShaded(route)) {
    const one = commonWeight(loss, stop);
    if (one === undefined) return undefined;
    if (one === null) return null;
    sum += Math.abs(one);
  }
  return Math.min(sum / LARGEST, 1);
}

function strengthAt(route, row, stop, token) {
  let sum = 0;
  for (const loss of lossesShaded(route)) {
    const one = plainWeight(loss, row, stop, token);
    if (one === null) return null;
    sum += Math.abs(one);
  }
  return Number.isFinite(sum) ? Math.min(sum / LARGEST, 1) : 1;
}

const TINT = { low: 0, high: 0 };
function readTint() {
  const style = getComputedStyle(document.documentElement);
  TINT.low = Number(style.getPropertyValue("--tint-low"));
  TINT.high = Number(style.getPropertyValue("--tint-high"));
}
const alpha = (strength) => (strength ? (TINT.low + strength * (TINT.high - TINT.low)).toFixed(3) : 0);

/** The labels of each token after the caps, as one text. */
function labelsAt(data, token) {
  return Object.keys(data.capped).filter((label) => data.capped[label][token]).join(" ");
}

/** Draw a response at a step. */
function draw(row, stop) {
  const box = document.getElementById(`text-${row}`), data = rollout(row), variant = DATA.routing_of_stop[stop];
  const choices = DATA.routings[variant].choices, taken = data.routes[data.of_routing[variant]];
  const varied = new Map(), segments = [], fragment = document.createDocumentFragment();
  let now = null, reached = 0, before = {};
  for (let token = 0; token < taken.length; token++) {
    const choice = choices[taken[token]], labels = labelsAt(data, token), route = choice.length === 1 ? choice[0] : null;
    let own = null;
    if (route !== null && route !== NO_ROUTE) {
      if (!varied.has(route)) {
        const common = commonStrength(route, stop);
        varied.set(route, common === undefined || lacks(route, row));
      }
      if (varied.get(route)) own = strengthAt(route, row, stop, token);
    }
    const shade = own === null ? (varied.get(route) ? "?" : "") : Math.ceil(own * BUCKETS);
    const stopToken = data.starts[token] === data.ends[token] && data.starts[token] === data.response.length;
    const key = `${taken[token]}|${labels}|${shade}|${stopToken}`;
    if (now === null || now.key !== key) {
      now = { key, first: token, start: reached, element: document.createElement("span") };
      now.element.className = segmentClass(choice, shade);
      if (own !== null) now.element.style.setProperty("--own", alpha(own));
      const mark = markOf(choice, labels);
      if (mark && (before.labels !== labels || before.choice !== taken[token])) now.element.dataset.mark = mark;
      if (stopToken) now.element.classList.add("end");
      segments.push(now);
      fragment.append(now.element);
      before = { labels, choice: taken[token] };
    }
    const end = Math.max(reached, data.ends[token]);
    now.text = (now.text || "") + (stopToken ? "⟨end⟩" : data.response.slice(reached, end));
    now.last = token;
    reached = end;
  }
  if (now && reached < data.response.length) now.text += data.response.slice(reached);
  for (const segment of segments) segment.element.textContent = segment.text;
  box.replaceChildren(fragment);
  if (!taken.length) box.textContent = "(empty response)";
  box.style.minHeight = "";
  shown.set(row, segments);
  if (chosen && chosen.row === row) outline();
}

/** Whether a divergence of a route leaves a rollout out, or may, for want of a context: its strength is another there. */
const lacks = (route, row) => lossesShaded(route).some((loss) => hasContext(loss, row) !== true);

function segmentClass(choice, shade) {
  if (choice.length > 1) return "seg undecided";
  if (choice[0] === NO_ROUTE || !DATA.routes[choice[0]].losses.length) return "seg unrouted";
  return `seg r${choice[0]}${shade === "" ? "" : shade === "?" ? " maybe" : " own"}`;
}

function markOf(choice, labels) {
  if (choice.length > 1) return [choice.map((r) => (r < 0 ? "–" : DATA.routes[r].letter)).join("/") + "?", labels].join(" ").trim();
  const route = choice[0] === NO_ROUTE ? null : DATA.routes[choice[0]];
  const letter = route === null ? "–" : route.quiet ? "" : route.letter;
  return [letter === "–" && !labels ? "" : letter, labels].join(" ").trim();
}

/** Recolour for a step: custom properties for all tokens of a route, single elements only where weights differ. */
function recolour(stop, redrawn) {
  const list = document.getElementById("list");
  for (const route of DATA.routes) {
    const strength = commonStrength(route.index, stop);
    list.style.setProperty(`--a${route.index}`, alpha(strength || 0));
    list.classList.toggle(`unknown-${route.index}`, strength === null);
  }
  for (const row of [...shown.keys()]) {
    const own = shown.get(row).some((s) => /\b(own|maybe)\b/.test(s.element.className));
    if (redrawn || own || variesIn(row, stop)) draw(row, stop);
  }
}

/** Whether a drawn response now has tokens of a route whose weights differ by token. */
function variesIn(row, stop) {
  return DATA.routes.some((route) => (commonStrength(route.index, stop) === undefined || lacks(route.index, row))
    && shown.get(row).some((s) => s.element.classList.contains(`r${route.index}`)));
}

const observer = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    const row = Number(entry.target.dataset.row);
    if (entry.isIntersecting) {
      if (!shown.has(row)) draw(row, stopNow);
    } else if (shown.has(row) && document.activeElement !== entry.target) {
      entry.target.style.minHeight = `${entry.target.offsetHeight}px`;
      entry.target.replaceChildren();
      shown.delete(row);
    }
  }
}, { rootMargin: "500px 0px" });

// ------------------------------------------------------------------------------------------------------ one token

let chosen = null; // {row, token}

/** The characters of a token in the drawn text, as a range of the document. */
function rangeOf(row, token) {
  const segment = (shown.get(row) || []).find((s) => s.first <= token && token <= s.last);
  if (!segment) return null;
  const data = rollout(row), range = document.createRange(), node = segment.element.firstChild;
  if (!node) return null;
  const inside = (place) => Math.max(0, Math.min(place - segment.start, node.length));
  range.setStart(node, inside(data.starts[token]));
  range.setEnd(node, segment.element.classList.contains("end") ? node.length : inside(data.ends[token]));
  return range;
}

/** Frame the chosen token. */
function outline() {
  for (const old of document.querySelectorAll(".cursor")) old.remove();
  const range = chosen && rangeOf(chosen.row, chosen.token);
  if (!range) return;
  const box = document.getElementById(`text-${chosen.row}`), frame = box.getBoundingClientRect();
  for (const rect of range.getClientRects()) {
    const mark = document.createElement("div");
    mark.className = pinned ? "cursor kept" : "cursor";
    mark.style.cssText = `left:${rect.left - frame.left - 3}px;top:${rect.top - frame.top - 2}px;`
      + `width:${Math.max(rect.width, 6) + 6}px;height:${rect.height + 4}px`;
    box.append(mark);
  }
}

/** The token under a point of the screen, or null. */
function tokenAt(x, y) {
  const element = document.elementFromPoint(x, y), segmentElement = element && element.closest(".seg");
  if (!segmentElement) return null;
  const row = Number(segmentElement.closest(".text").dataset.row);
  const segment = shown.get(row).find((s) => s.element === segmentElement);
  const position = document.caretPositionFromPoint ? document.caretPositionFromPoint(x, y) : null;
  const legacy = !position && document.caretRangeFromPoint ? document.caretRangeFromPoint(x, y) : null;
  let offset = position ? position.offset : legacy ? legacy.startOffset : 0;
  const node = segmentElement.firstChild, found = position ? position.offsetNode : legacy ? legacy.startContainer : null;
  if (found !== node) offset = 0;
  if (offset > 0 && node) { // the caret stands at the nearer side of a character
    const range = document.createRange();
    range.setStart(node, offset - 1);
    range.setEnd(node, offset);
    const hit = [...range.getClientRects()].some((r) => x >= r.left && x < r.right && y >= r.top - 6 && y <= r.bottom + 6);
    if (hit || offset >= node.length) offset -= 1;
  }
  const data = rollout(row), place = segment.start + offset;
  let low = segment.first, high = segment.last;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (data.ends[middle] > place) high = middle; else low = middle + 1;
  }
  return { row, token: low };
}
