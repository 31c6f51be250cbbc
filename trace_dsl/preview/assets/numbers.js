"use strict";
// The numbers of the page: curves by step times columns by rollout or token, as the page was given them.

const NAMED = { nan: NaN, inf: Infinity, "-inf": -Infinity };
const number = (value) => (typeof value === "string" ? NAMED[value] : value);

/** Equal neighbours are written as [count, value]; a list that begins with 0 is written out. */
function expand(runs) {
  if (runs[0] === 0) return runs.slice(1).map((v) => (Array.isArray(v) ? v : number(v)));
  const found = [];
  for (const [count, value] of runs) for (let n = 0; n < count; n++) found.push(number(value));
  return found;
}

/** Whole numbers in full, others to four significant digits: the same text as trace_dsl/preview/digits.py gives. */
function digits(value) {
  if (Number.isNaN(value)) return "not a number";
  if (!Number.isFinite(value)) return value > 0 ? "infinite" : "-infinite";
  if (Number.isInteger(value) && Math.abs(value) < 1e9) return String(value + 0);
  const [mantissa, exponent] = Math.abs(value).toExponential(3).split("e");
  const power = Number(exponent), sign = value < 0 ? "-" : "", figures = mantissa.replace(".", "");
  const trim = (text) => (text.includes(".") ? text.replace(/0+$/, "").replace(/\.$/, "") : text);
  if (power < -4 || power >= 6) return `${sign}${trim(mantissa)}e${power}`;
  if (power < 0) return sign + trim(`0.${"0".repeat(-power - 1)}${figures}`);
  const whole = figures.padEnd(power + 1, "0");
  return sign + trim(`${whole.slice(0, power + 1)}.${whole.slice(power + 1)}`);
}

const DATA = JSON.parse(document.getElementById("page-data").textContent);
DATA.routing_of_stop = expand(DATA.routing_of_stop);
const STOPS = DATA.stops.length ? DATA.stops.length : DATA.total_steps;
const stepOf = (stop) => (DATA.stops.length ? DATA.stops[stop] : stop);
const spread = (quantity) => quantity && (quantity.terms
  ? { terms: quantity.terms.map(expand) } : { of_step: expand(quantity.of_step) });
DATA.losses.forEach((loss, index) => {
  loss.index = index;
  loss.active = expand(loss.active);
  loss.quantity = spread(loss.quantity);
  loss.advantage_quantity = spread(loss.advantage_quantity);
});
DATA.routes.forEach((route, index) => {
  route.index = index;
  route.losses = DATA.losses.filter((loss) => loss.route === index);
});
const LARGEST = Math.max(...DATA.losses.map((loss) => loss.peak), 0) || 1;

const ROLLOUTS = new Map();
/** A rollout's own data, read when it is looked at. */
function rollout(row) {
  if (!ROLLOUTS.has(row)) {
    const data = JSON.parse(document.getElementById(`rollout-${row}`).textContent);
    const { ends, pairs } = data.intervals;
    data.starts = pairs ? pairs.map((p) => p[0]) : [0, ...ends.slice(0, -1)];
    data.ends = pairs ? pairs.map((p) => p[1]) : ends;
    if (!data.ends.length) data.starts = [];
    data.routes = data.routes.map(expand);
    for (const label of Object.keys(data.capped)) data.capped[label] = expand(data.capped[label]);
    data.tool = new Set(data.tool);
    ROLLOUTS.set(row, data);
    if (ROLLOUTS.size > 64) ROLLOUTS.delete(ROLLOUTS.keys().next().value);
  }
  return ROLLOUTS.get(row);
}

const at = (values, token) => number(Array.isArray(values) ? values[token] : values);

/** A weight or an advantage at a token; null where only the run can tell. */
function valueOf(quantity, values, stop, token) {
  if (quantity.of_step) return at(values[quantity.of_step[stop]], token);
  let total = 0;
  for (let n = 0; n < quantity.terms.length; n++) {
    const factor = quantity.terms[n][stop], value = at(values[n], token);
    if (factor === null || value === null) return null;
    total += factor * value;
  }
  return total;
}

/** The routes that may take a token, in order; -1: perhaps none. */
function choiceAt(row, stop, token) {
  const data = rollout(row), variant = DATA.routing_of_stop[stop];
  return DATA.routings[variant].choices[data.routes[data.of_routing[variant]][token]];
}

/** The weight of a loss at a token before its denominator; null where only the run can tell. */
function plainWeight(loss, row, stop, token) {
  const choice = choiceAt(row, stop, token);
  if (!choice.includes(loss.route)) return 0;
  const value = weightIfTaken(loss, row, stop, token);
  return value === 0 || (choice.length === 1 && hasContext(loss, row) !== null) ? value : null;
}

/** The same if the route takes the token and the rollout has what the teacher sees. */
function weightIfTaken(loss, row, stop, token) {
  if (!loss.active[stop] || hasContext(loss, row) === false) return 0;
  return valueOf(loss.quantity, rollout(row).weights[loss.index], stop, token);
}

/** Whether a rollout has what the teacher of a loss sees; null where the file does not say. */
const hasContext = (loss, row) => (loss.context === null ? true : DATA.rows[row].contexts[loss.index]);

/** What divides the weight of a loss: a number, or null where it hangs on what only the run can tell. */
function denominator(loss, row, stop) {
  switch (loss.kind) {
    case "sequence": return DATA.rows[row].tokens * loss.responses;
    case "token": return loss.written;
    case "selected": return loss.selected[DATA.routing_of_stop[stop]];
    default: return loss.constant * loss.responses;
  }
}

function weight(loss, row, stop, token) {
  const plain = plainWeight(loss, row, stop, token);
  if (plain === null || plain === 0) return plain;
  const divisor = denominator(loss, row, stop);
  return divisor === null ? null : Math.fround(plain / divisor);
}

function advantage(loss, row, stop, token) {
  const value = valueOf(loss.advantage_quantity, rollout(row).advantages[loss.index], stop, token);
  return value === null ? null : Math.fround(value);
}

/** The smallest and largest weight of a loss at a step, where its tokens share a curve; null for other losses. */
function extentAt(loss, stop) {
  if (!loss.active[stop]) return loss.extent && [0, 0];
  const factor = loss.extent && loss.quantity.terms[0][stop];
  if (typeof factor !== "number") return null;
  return loss.extent.map((value) => factor * value).sort((a, b) => a - b);
}

/** The weight that a loss has at every token of its route; undefined where it is not one number, null if unknown. */
function commonWeight(loss, stop) {
  if (!loss.active[stop]) return 0;
  if (!loss.by_step || !loss.quantity.terms) return loss.nought ? 0 : undefined;
  return loss.quantity.terms.reduce((sum, term) => (sum === null || term[stop] === null ? null : sum + term[stop]), 0);
}
