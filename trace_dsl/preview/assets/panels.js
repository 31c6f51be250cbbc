"use strict";
// What stands around the responses: routes with their losses, curves, coverage, and the details of a token.

const make = (tag, attributes = {}, ...children) => {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === false || value === undefined) continue;
    if (name === "text") element.textContent = value; else element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
};
const PATTERNS = ["solid", "dashed", "double", "dotted"];
const UNKNOWN = "decided during the run";
const percent = (share) => `${(100 * share).toFixed(share < 0.1 ? 1 : 0)}%`;
const plural = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;

/** The letter of a route; in no colour where the route has no loss, as its tokens are. */
function chip(route) {
  const look = route !== null && route.losses.length ? `r${route.index}` : "none";
  return make("span", { class: `chip ${look}`, text: route === null ? "–" : route.letter, "aria-hidden": route === null && "true" });
}

/** Style of each route: its hue, and a pattern that needs no colour. */
function routeStyles() {
  const rules = DATA.routes.map((route) => {
    const { index } = route, pattern = PATTERNS[index % PATTERNS.length];
    return `.r${index}{--hue:var(--hue-${route.hue});--pattern:${pattern};--chip:rgb(var(--hue))}`
      + `.seg.r${index}{--faint:${route.quiet ? 0.5 : 1};background:rgb(var(--hue)/calc(var(--faint)*var(--a${index},0)));`
      + `border-bottom:${route.quiet ? 1 : 2}px ${pattern} rgb(var(--hue))}`
      + `.seg.r${index}.own{background:rgb(var(--hue)/calc(var(--faint)*var(--own,0)))}`
      + `.unknown-${index} .seg.r${index},.seg.r${index}.maybe{background:repeating-linear-gradient(135deg,`
      + `rgb(var(--hue)/.2) 0 4px,transparent 4px 8px)}`;
  });
  document.head.append(make("style", { text: rules.join("\n") }));
}

// ----------------------------------------------------------------------------------------------------------- routes

const liveNumbers = []; // functions of the stop that update a number on the page

function routePanel() {
  const list = document.getElementById("routes");
  for (const route of DATA.routes) {
    const losses = make("div", { class: "losses" });
    for (const loss of route.losses) losses.append(lossLine(loss));
    if (!route.losses.length) losses.append(make("span", { class: "soft", text: "no loss" }));
    const tokens = make("div", { class: "tokens" });
    liveNumbers.push((stop) => { tokens.textContent = tokensOf(route.index, stop); });
    list.append(make("div", { class: `route r${route.index}`, role: "listitem" }, chip(route),
      make("div", { class: "route-name", text: route.name }), losses, tokens));
  }
  const none = make("div", { class: "route", role: "listitem" }, chip(null), make("div", { class: "route-name", text: "no route" }),
    make("div", { class: "soft", text: "feeds no loss" }));
  const tokens = make("div", { class: "tokens" });
  none.append(tokens);
  liveNumbers.push((stop) => {
    tokens.textContent = tokensOf(NO_ROUTE, stop);
    none.style.display = countsOf(NO_ROUTE, stop)[1] ? "" : "none";
  });
  list.append(none);
}

/** [tokens that surely take a route, tokens that may]. */
function countsOf(route, stop) {
  const routing = DATA.routings[DATA.routing_of_stop[stop]];
  let sure = 0, maybe = 0;
  routing.choices.forEach((choice, n) => {
    if (!choice.includes(route)) return;
    maybe += routing.counts[n];
    if (choice.length === 1) sure += routing.counts[n];
  });
  return [sure, maybe];
}

function tokensOf(route, stop) {
  const [sure, maybe] = countsOf(route, stop), share = percent(DATA.tokens ? sure / DATA.tokens : 0);
  if (sure === maybe) return `${plural(sure, "token")}\n${share}`;
  return `${sure.toLocaleString("en")} to ${maybe.toLocaleString("en")} tokens`;
}

function lossLine(loss) {
  const now = make("span", { class: "now" }), bar = make("i");
  liveNumbers.push((stop) => {
    const common = commonWeight(loss, stop), extent = common === undefined ? extentAt(loss, stop) : null;
    const largest = extent ? Math.max(...extent.map(Math.abs)) : Math.abs(common || 0);
    now.textContent = extent ? `w ${[...new Set(extent.map(digits))].join(" to ")}`
      : common === null || (common === undefined && loss.unknown) ? UNKNOWN : common === undefined ? "by token" : `w ${digits(common)}`;
    bar.style.setProperty("--share", Math.min(largest / LARGEST, 1));
  });
  return make("div", { class: "loss" }, make("span", { class: "call", text: loss.text }), now,
    make("span", { class: "formula", text: `${loss.formula} · per ${loss.per}`
      + (loss.context ? ` · only rollouts with a ${loss.context}` : "") }),
    make("span", { class: "meter", "aria-hidden": "true" }, bar));
}

// ----------------------------------------------------------------------------------------------------------- curves

const SVG = "http://www.w3.org/2000/svg";
function svg(tag, attributes, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}
// One for each loss, behind each other: where two curves are one, the upper leaves gaps that show the lower.
const DASHES = ["", "9 6", "2 5", "14 4 2 4", "6 3 2 3 2 3"];
const FRAME = { width: 900, height: 230, left: 46, right: 12, top: 10, bottom: 26 };

function curvePanel() {
  const box = document.getElementById("curves");
  const known = DATA.losses.filter((loss) => loss.by_step && loss.quantity.terms);
  const banded = DATA.losses.filter((loss) => !known.includes(loss) && loss.extent);
  const measured = DATA.losses.filter((loss) => !known.includes(loss) && !loss.extent);
  FRAME.width = Math.max(320, Math.min(900, box.clientWidth || 900)); // so that words are as large as elsewhere
  if (known.length + banded.length) box.append(chart(known, banded));
  const keys = make("ul", { class: "keys" });
  for (const loss of [...known, ...banded]) {
    const line = svg("line", { x1: 0, x2: 28, y1: 4, y2: 4, class: "curve", "stroke-width": banded.includes(loss) ? 8 : 2,
      style: `stroke:rgb(var(--hue)/${banded.includes(loss) ? 0.3 : 1})`, "stroke-dasharray": banded.includes(loss) ? "" : dashOf(loss) });
    keys.append(make("li", { class: `r${loss.route}` }, svg("svg", { viewBox: "0 0 28 8", "aria-hidden": "true" }, line),
      make("span", { text: `${DATA.routes[loss.route].letter} ${loss.name}${banded.includes(loss) ? ", its smallest to its largest" : ""}` })));
  }
  box.append(keys);
  for (const loss of measured) {
    box.append(make("p", { class: "soft hint", text: `${loss.name}: w = ${loss.weight} ${loss.unknown ? `is ${UNKNOWN}` : "differs by rollout or token"}.` }));
  }
}

const dashOf = (loss) => DASHES[loss.index % DASHES.length];

function chart(losses, banded) {
  const values = losses.map((loss) => Array.from({ length: STOPS }, (_, stop) => commonWeight(loss, stop) ?? NaN));
  const bands = banded.map((loss) => Array.from({ length: STOPS }, (_, stop) => extentAt(loss, stop) || [NaN, NaN]));
  const finite = [...values.flat(), ...bands.flat(2)].filter(Number.isFinite);
  const high = Math.max(0, ...thin(finite, 20000)) || 1, low = Math.min(0, ...thin(finite, 20000));
  const x = (stop) => FRAME.left + (FRAME.width - FRAME.left - FRAME.right) * (STOPS > 1 ? stop / (STOPS - 1) : 0);
  const y = (value) => FRAME.top + (FRAME.height - FRAME.top - FRAME.bottom) * ((high - value) / (high - low));
  const ends = (pair) => `${digits(pair[0])} to ${digits(pair[1])}`;
  const named = losses.map((loss, n) => `${loss.name} from ${digits(values[n][0])} to ${digits(values[n][STOPS - 1])}`);
  const picture = svg("svg", { viewBox: `0 0 ${FRAME.width} ${FRAME.height}`, class: "chart", role: "img",
    "aria-label": `Weight of each loss by step: ${[...named, ...banded.map((loss, n) =>
      `${loss.name} between ${ends(bands[n][0])} at first, ${ends(bands[n][STOPS - 1])} at last`)].join("; ")}` });
  for (const value of [...new Set([low, (low + high) / 2, high])]) {
    picture.append(svg("line", { class: "grid", x1: FRAME.left, x2: FRAME.width - FRAME.right, y1: y(value), y2: y(value) }),
      text(digits(value), FRAME.left - 8, y(value) + 4, "end"));
  }
  for (const stop of new Set([0, Math.round((STOPS - 1) / 2), STOPS - 1])) {
    picture.append(text(`step ${stepOf(stop)}`, x(stop), FRAME.height - 6, stop === 0 ? "start" : stop === STOPS - 1 ? "end" : "middle"));
  }
  banded.forEach((loss, n) => {
    const stops = thin([...bands[n].keys()], 700).filter((stop) => Number.isFinite(bands[n][stop][0]));
    const point = (stop, side) => `${x(stop).toFixed(1)},${y(bands[n][stop][side]).toFixed(1)}`;
    const outline = [...stops.map((stop) => point(stop, 1)), ...stops.reverse().map((stop) => point(stop, 0))].join(" ");
    picture.append(svg("g", { class: `r${loss.route}` },
      svg("polygon", { points: outline, style: "fill:rgb(var(--hue)/.22);stroke:rgb(var(--hue)/.6)" })));
  });
  losses.forEach((loss, n) => {
    const points = thin([...values[n].keys()], 1500).filter((stop) => Number.isFinite(values[n][stop]));
    const path = points.map((stop) => `${x(stop).toFixed(1)},${y(values[n][stop]).toFixed(1)}`).join(" ");
    picture.append(svg("g", { class: `r${loss.route}` },
      svg("polyline", { class: "curve", points: path, "stroke-dasharray": dashOf(loss) })));
  });
  const line = svg("line", { class: "now", y1: FRAME.top, y2: FRAME.height - FRAME.bottom });
  liveNumbers.push((stop) => { line.setAttribute("x1", x(stop)); line.setAttribute("x2", x(stop)); });
  picture.append(line);
  return picture;
}

const text = (words, x, y, anchor) => svg("text", { x, y, "text-anchor": anchor }, words);
const thin = (values, most) => (values.length <= most ? values
  : Array.from({ length: most }, (_, n) => values[Math.round((n * (values.length - 1)) / (most - 1))]));

// --------------------------------------------------------------------------------------------------------- coverage

function coveragePanel() {
  const box = document.getElementById("coverage");
  if (!DATA.labels.length) document.getElementById("coverage-section").remove();
  for (const label of DATA.labels) {
    const cap = label.cap === null ? "no cap" : `cap ${percent(label.cap)}`;
    const cut = label.cut ? `, ${plural(label.cut, "token")} cut off` : "";
    const said = label.responses ? `${percent(label.mean)} of a response on average, ${percent(label.largest)} at most, `
      + `in ${plural(label.responses, "response")} that ${label.responses === 1 ? "has" : "have"} it; ${cap}${cut}` : `in no response; ${cap}`;
    const track = make("div", { class: "track", role: "img", "aria-label": `${label.name}: ${said}` },
      make("span", { class: "mean", style: `width:${100 * label.mean}%` }),
      make("span", { class: "largest", style: `left:${100 * label.largest}%` }));
    if (label.cap !== null) track.append(make("span", { class: "cap", style: `left:${100 * label.cap}%` }));
    box.append(make("div", { class: "cover" }, make("span", { class: "mono", text: label.name }), track,
      make("span", { class: "soft said", text: said })));
  }
}

// ---------------------------------------------------------------------------------------------------------- details

function detailsOf(row, token, stop) {
  const data = rollout(row), choice = choiceAt(row, stop, token), header = DATA.rows[row];
  const piece = data.response.slice(data.starts[token], data.ends[token]);
  const parts = [make("div", {}, make("div", { class: "token-text", text: shownText(piece) }),
    make("p", { class: "soft", text: `Token ${token + 1} of ${header.tokens} in rollout ${row + 1}, at step ${stepOf(stop)}` }))];
  parts.push(section("Route", triedRoutes(row, token, stop, choice)));
  const spans = data.spans.filter(([, , first, last]) => first <= token && token < last);
  if (spans.length) {
    parts.push(section("Spans", pairs(spans.map(([label, kind]) => {
      const carries = data.capped[label] && data.capped[label][token];
      const known = DATA.labels.some((one) => one.name === label);
      return [label, (kind || "no type") + (carries ? "" : known ? " · cut off by the cap" : " · not in this spec")];
    }))));
  }
  const losses = DATA.losses.filter((loss) => choice.includes(loss.route));
  if (losses.length) parts.push(section("Losses", make("div", {}, ...losses.map((loss) => oneLoss(loss, row, token, stop)))));
  else parts.push(section("Losses", make("p", { text: "None: this token trains nothing." })));
  const signals = Object.entries(data.signals).map(([name, values]) => [name, told(at(values, token))]);
  if (signals.length) parts.push(section("Measured here", pairs(signals)));
  parts.push(section("Rollout", pairs([["reward", digits(header.reward)], ["verdict", verdict(header)],
    [`A, ${DATA.advantage}`, told(header.A)], ["group", header.group]])));
  return parts;
}

const section = (title, content) => make("section", {}, make("h3", { text: title }), content);
const pairs = (entries) => make("dl", {}, ...entries.flatMap(([name, value]) => [make("dt", { text: name }), make("dd", { text: value })]));
const told = (value) => (value === null || value === undefined ? UNKNOWN : digits(number(value)));
const verdict = (header) => (header.judged ? (header.correct ? "correct" : "wrong") : "no verdict");
const shownText = (piece) => (piece === "" ? "⟨end⟩" : piece.replaceAll("\n", "↵").replaceAll("\t", "⇥").replaceAll(" ", "␣"));

/** Every route in order, up to the one that takes the token, and why it does or does not. */
function triedRoutes(row, token, stop, choice) {
  const data = rollout(row), list = make("ol", { class: "tried" });
  const sure = choice[choice.length - 1];
  for (const route of DATA.routes) {
    const may = choice.includes(route.index), takes = may && route.index === sure;
    const why = takes && choice.length === 1 ? holds(route) : may ? `${UNKNOWN}: ${takes ? "takes it if none above does" : route.when}`
      : whyNot(route, data, row, token);
    list.append(make("li", {}, chip(route), make("span", { class: "route-name", text: route.name }),
      make("span", { class: "why", text: `${takes && choice.length === 1 ? "✓ " : ""}${why}` })));
    if (takes) return list;
  }
  if (sure === NO_ROUTE) list.append(make("li", {}, chip(null), make("span", { text: choice.length > 1 ? "or no route" : "no route takes it" })));
  return list;
}

const holds = (route) => (route.when ? `holds: ${route.when}` : route.rest ? "takes what is left" : "no condition");

function whyNot(route, data, row, token) {
  if (DATA.rows[row].rows !== route.rows || !DATA.rows[row].judged) return "takes other rollouts";
  if (!route.rest && !route.labels.some((label) => data.capped[label] && data.capped[label][token])) {
    return `the token carries no ${route.labels.join(" or ")}`;
  }
  if (data.tool.has(token)) return "takes no tool output";
  return route.when ? `does not hold: ${route.when}` : "takes nothing at this step";
}

function oneLoss(loss, row, token, stop) {
  const plain = weightIfTaken(loss, row, stop, token), whole = weight(loss, row, stop, token), divisor = denominator(loss, row, stop);
  const entries = [["weight w", plain === null ? UNKNOWN : digits(plain)],
    ["divided by", `${divisor === null ? UNKNOWN : digits(divisor)} (${divisorText(loss, row)})`],
    ["in training", whole === null ? UNKNOWN : digits(whole)]];
  if (loss.advantage_quantity && loss.active[stop]) {
    const A = advantage(loss, row, stop, token);
    entries.push([loss.advantage === "A" ? "advantage A" : "advantage", A === null ? UNKNOWN : digits(A)]);
    if (A === 0) entries.push(["", "an advantage of 0 contributes nothing"]);
  }
  const context = hasContext(loss, row);
  if (context === false) entries.push(["left out", `the rollout has no ${loss.context}`]);
  if (context === null) entries.push(["hangs on", `whether there is a ${loss.context}: the file does not say`]);
  return make("div", { class: `one-loss r${loss.route}` },
    make("div", { class: "call", text: loss.text }), make("div", { class: "soft", text: loss.formula }), pairs(entries));
}

function divisorText(loss, row) {
  const responses = plural(loss.responses, "response");
  switch (loss.kind) {
    case "sequence": return `${plural(DATA.rows[row].tokens, "token")} × ${responses}`;
    case "token": return "tokens that the model wrote";
    case "selected": return "tokens that the route takes";
    default: return `${digits(loss.constant)} × ${responses}`;
  }
}

/** One sentence for those who listen. */
function spokenText(row, token, stop) {
  const data = rollout(row), choice = choiceAt(row, stop, token);
  const piece = data.response.slice(data.starts[token], data.ends[token]).trim() || (data.starts[token] === data.ends[token] ? "end" : "blank");
  const named = choice.map((r) => (r === NO_ROUTE ? "no route" : `route ${DATA.routes[r].letter}, ${DATA.routes[r].name}`)).join(" or ");
  const spans = data.spans.filter(([, , first, last]) => first <= token && token < last)
    .map(([label, kind]) => `${label} span${kind ? `, ${kind}` : ""}`);
  const losses = DATA.losses.filter((loss) => choice.includes(loss.route)).map((loss) => {
    const whole = weight(loss, row, stop, token);
    return `${loss.name} weight ${whole === null ? UNKNOWN : digits(whole)}`;
  });
  return [piece, ...spans, named, ...losses].join("; ");
}
