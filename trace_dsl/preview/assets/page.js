"use strict";
// The page itself: its header, its list of rollouts, and what keys and pointers do.

let stopNow = Math.min(DATA.start, STOPS - 1);
const byId = (id) => document.getElementById(id);

// ---------------------------------------------------------------------------------------------------------- rollouts

function rolloutCard(row) {
  const header = DATA.rows[row], labels = Object.entries(header.labels).map(([name, count]) => `${count} ${name}`).join(", ");
  const facts = [`group ${header.group}`, `reward ${digits(header.reward)}`, `A ${told(header.A)}`, plural(header.tokens, "token"),
    labels || "no spans"].join(" · ");
  const top = make("header", {}, make("h3", { text: `Rollout ${row + 1}` }),
    make("span", { class: `verdict ${header.correct ? "good" : "bad"}`, text: `${header.correct ? "✓" : "✗"} ${verdict(header)}` }),
    make("span", { class: "facts", text: facts }));
  if (header.differs) top.append(make("span", { class: "verdict bad", text: "routes differ from those of the run" }));
  const response = make("div", { class: "text", id: `text-${row}`, "data-row": row, tabindex: "0", role: "group",
    "aria-label": `Response of rollout ${row + 1}, ${plural(header.tokens, "token")}; arrow keys walk through them` });
  const width = Math.max(20, Math.min(110, Math.floor((byId("list").clientWidth || 800) / 8.5)));
  response.style.minHeight = `${29 * Math.max(1, header.lines + Math.ceil(header.characters / width))}px`;
  const prompts = make("details", { class: "shown" }, make("summary", {
    text: DATA.teachers.length ? "Prompt, and what the teacher is shown" : "Prompt" }));
  prompts.addEventListener("toggle", () => { if (prompts.open && prompts.children.length === 1) prompts.append(sides(row)); });
  return make("article", { class: "rollout", "aria-label": `Rollout ${row + 1}` }, top, response, prompts);
}

/** The student's prompt beside every teacher's, with what the teacher alone is shown marked. */
function sides(row) {
  const data = rollout(row), box = make("div", { class: "sides" });
  box.append(make("div", {}, make("h4", { text: "The student's prompt" }), scrolling("The student's prompt", data.prompt)));
  for (const teacher of data.teachers) {
    const title = `${teacher.name}, sees ${teacher.sees}`, side = make("div", {}, make("h4", { text: title }));
    if (!teacher.known) side.append(make("p", { text: `The file does not say whether there is a ${teacher.sees}: ${UNKNOWN}.` }));
    else if (teacher.prompt === null) side.append(make("p", { text: `This rollout has no ${teacher.sees}, so no divergence to this teacher takes it.` }));
    else side.append(scrolling(title, teacher.prompt, data.prompt));
    side.append(make("p", { text: notShown(data, teacher) }));
    box.append(side);
  }
  if (data.note) box.append(make("div", {}, make("h4", { text: "What was said of the response" }), scrolling("What was said of the response", data.note)));
  return box;
}

function scrolling(title, words, own = null) {
  const pre = make("pre", { tabindex: "0", role: "region", "aria-label": title });
  const place = own ? words.indexOf(own) : -1;
  if (own === null || words === own) pre.textContent = words;
  else if (place < 0) pre.append(make("mark", { text: words }));
  else pre.append(...[[words.slice(0, place), 1], [own, 0], [words.slice(place + own.length), 1]]
    .filter(([part]) => part).map(([part, marked]) => (marked ? make("mark", { text: part }) : part)));
  return pre;
}

function notShown(data, teacher) {
  const hidden = ["the response", ...(data.spans.length ? ["where its spans stand"] : []),
    ...Object.entries(data.contexts).filter(([name, words]) => words && name !== teacher.sees).map(([name]) => `the ${name}`)];
  return `Not shown: ${hidden.join(", ")}.`;
}

function listRollouts() {
  const list = byId("list"), fragment = document.createDocumentFragment();
  DATA.rows.forEach((_, row) => fragment.append(rolloutCard(row)));
  list.append(fragment);
  for (const box of list.querySelectorAll(".text")) observer.observe(box);
}

const FILTERS = [["all", "all rollouts", () => true], ["correct", "correct ones", (r) => r.judged && r.correct],
  ["wrong", "wrong ones", (r) => r.judged && !r.correct], ["advantage", "with an advantage", (r) => r.A !== 0],
  ["differs", "with other routes than the run's", (r) => r.differs]];

function filterControls() {
  const select = byId("filter");
  const labels = [...new Set(DATA.rows.flatMap((r) => Object.keys(r.labels)))].map((label) => [
    `label ${label}`, `with ${label} spans`, (r) => label in r.labels]);
  const choices = [...FILTERS, ...labels].filter(([name, , fits]) => name === "all" || DATA.rows.some(fits));
  for (const [name, words] of choices) select.append(make("option", { value: name, text: words }));
  const apply = () => {
    const fits = choices.find(([name]) => name === select.value)[2];
    let count = 0;
    byId("list").querySelectorAll(".rollout").forEach((card, row) => {
      card.hidden = !fits(DATA.rows[row]);
      count += !card.hidden;
    });
    byId("shown").textContent = count === DATA.rows.length ? String(count) : `${count} of ${DATA.rows.length}`;
  };
  select.addEventListener("change", apply);
  apply();
}

// -------------------------------------------------------------------------------------------------------- one token

let pinned = false; // a token that was clicked stays, wherever the pointer goes

function choose(row, token, { speak = false, open = false } = {}) {
  chosen = { row, token };
  outline();
  byId("details-body").replaceChildren(...detailsOf(row, token, stopNow));
  byId("details-title").textContent = `Token ${token + 1}${pinned ? " · kept" : ""}`;
  if (speak) byId("spoken").textContent = spokenText(row, token, stopNow);
  if (open) byId("details").classList.add("open");
}

function tokenControls() {
  const list = byId("list");
  let waiting = false, last = null;
  list.addEventListener("pointermove", (event) => {
    if (event.pointerType === "touch" || pinned) return;
    last = event;
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      const found = tokenAt(last.clientX, last.clientY);
      if (found && !(chosen && chosen.row === found.row && chosen.token === found.token)) choose(found.row, found.token);
    });
  });
  list.addEventListener("click", (event) => {
    const found = tokenAt(event.clientX, event.clientY);
    if (!found) return;
    pinned = !(pinned && chosen && chosen.row === found.row && chosen.token === found.token);
    choose(found.row, found.token, { open: true });
  });
  list.addEventListener("focusin", (event) => {
    const box = event.target.closest(".text");
    if (!box || !box.matches(":focus-visible")) return;
    const row = Number(box.dataset.row);
    if (!shown.has(row)) draw(row, stopNow);
    if (DATA.rows[row].tokens && !(chosen && chosen.row === row)) choose(row, 0, { speak: true, open: true });
  });
  list.addEventListener("keydown", (event) => {
    const box = event.target.closest(".text");
    if (!box || event.ctrlKey || event.metaKey || event.altKey) return;
    const row = Number(box.dataset.row), token = chosen && chosen.row === row ? chosen.token : 0;
    const enter = event.key === "Enter" && DATA.rows[row].tokens > 0, next = enter ? token : moved(event.key, row, token);
    if (next === null) return;
    event.preventDefault();
    pinned = true;
    choose(row, next, { speak: !enter, open: true });
    if (enter) byId("details").focus(); else keepInView(row, next);
  });
  const close = () => {
    pinned = false;
    if (chosen && byId("details").contains(document.activeElement)) byId(`text-${chosen.row}`).focus({ preventScroll: true });
    byId("details").classList.remove("open");
    outline();
  };
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") close(); });
  byId("close").addEventListener("click", close);
  const settle = () => {
    document.documentElement.style.setProperty("--bar", `${document.querySelector(".bar").offsetHeight}px`);
    outline();
  };
  addEventListener("resize", settle);
  settle();
}

/** The token that a key leads to; null for a key that leads nowhere. */
function moved(key, row, token) {
  const last = DATA.rows[row].tokens - 1;
  if (last < 0) return null;
  switch (key) {
    case "ArrowRight": return Math.min(token + 1, last);
    case "ArrowLeft": return Math.max(token - 1, 0);
    case "Home": return 0;
    case "End": return last;
    case "n": case "N": return nextRoute(row, token, 1, last);
    case "p": case "P": return nextRoute(row, token, -1, last);
    default: return null;
  }
}

function nextRoute(row, token, way, last) {
  const own = choiceAt(row, stopNow, token).join();
  for (let n = token + way; n >= 0 && n <= last; n += way) if (choiceAt(row, stopNow, n).join() !== own) return n;
  return token;
}

function keepInView(row, token) {
  const range = rangeOf(row, token), rect = range && range.getBoundingClientRect();
  if (!rect) return;
  const top = 130, bottom = innerHeight * (innerWidth <= 1000 ? 0.4 : 0.9);
  if (rect.top < top) scrollBy(0, rect.top - top);
  else if (rect.bottom > bottom) scrollBy(0, rect.bottom - bottom);
}

// ------------------------------------------------------------------------------------------------------------ header

function setStop(stop) {
  const redrawn = DATA.routing_of_stop[stop] !== DATA.routing_of_stop[stopNow];
  stopNow = stop;
  byId("step").value = stop;
  byId("step").setAttribute("aria-valuetext", `step ${stepOf(stop)} of ${DATA.total_steps}`);
  byId("step-text").textContent = `step ${stepOf(stop)} of ${DATA.total_steps}`;
  for (const update of liveNumbers) update(stop);
  recolour(stop, redrawn);
  if (chosen) choose(chosen.row, chosen.token);
}

function stepControls() {
  const slider = byId("step"), play = byId("play");
  slider.max = STOPS - 1;
  let waiting = false;
  slider.addEventListener("input", () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; setStop(Number(slider.value)); });
  });
  let timer = 0;
  const end = () => {
    clearInterval(timer);
    timer = 0;
    play.textContent = "▶";
    play.setAttribute("aria-pressed", "false");
  };
  play.addEventListener("click", () => {
    if (timer) return end();
    play.textContent = "❚❚";
    play.setAttribute("aria-pressed", "true");
    if (stopNow === STOPS - 1) setStop(0);
    const each = Math.max(1, Math.ceil(STOPS / 160));
    timer = setInterval(() => {
      setStop(Math.min(stopNow + each, STOPS - 1));
      if (stopNow === STOPS - 1) end();
    }, 80);
  });
}

function themeControl() {
  const root = document.documentElement, button = byId("theme"), dark = matchMedia("(prefers-color-scheme: dark)");
  const set = (name) => {
    root.dataset.theme = name;
    button.textContent = name === "dark" ? "☀" : "☾";
    readTint();
    recolour(stopNow, true);
  };
  button.addEventListener("click", () => set(root.dataset.theme === "dark" ? "light" : "dark"));
  dark.addEventListener("change", () => set(dark.matches ? "dark" : "light"));
  set(dark.matches ? "dark" : "light");
}

function notes() {
  const box = byId("notes"), say = (words, warn) => box.append(make("p", { text: words, class: warn ? "warn" : null }));
  say(DATA.run);
  if (DATA.agreement) {
    const { rollouts, differing } = DATA.agreement;
    if (differing) say(`At step ${DATA.written_at} the run gave tokens of ${plural(differing, "rollout")} other routes than this spec does.`, true);
    else say(`At step ${DATA.written_at} every token of the ${plural(rollouts, "rollout")} has the route that the run wrote.`);
  }
  if (DATA.words) say("Tokens are words, each with the blank before it: the file has no tokens or intervals. Weights divided by lengths are others with a tokenizer's.");
  if (DATA.stops.length) say(`The slider stops at ${STOPS} of ${DATA.total_steps} steps: routes or weights of every one would not fit a page.`);
  for (const note of DATA.notes) say(note);
}

function shadeControl() {
  const select = byId("shade");
  select.append(make("option", { value: "-1", text: "all losses" }));
  for (const loss of DATA.losses) select.append(make("option", { value: loss.index, text: `${DATA.routes[loss.route].letter} ${loss.name}` }));
  select.addEventListener("change", () => { shadedBy = Number(select.value); recolour(stopNow, true); });
}

byId("spec-name").textContent = DATA.spec.name;
byId("on-file").textContent = `on ${DATA.rollouts_file}`;
routeStyles();
routePanel();
curvePanel();
coveragePanel();
notes();
shadeControl();
listRollouts();
filterControls();
tokenControls();
stepControls();
themeControl();
setStop(stopNow);
document.documentElement.dataset.ready = "true";
