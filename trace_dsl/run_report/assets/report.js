"use strict";
// A pointer on a chart reads the values at the nearest step; the tables below the charts have them all.

const DATA = JSON.parse(document.getElementById("chart-data").textContent);

function make(tag, className, text) {
  const element = document.createElement(tag);
  element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

function nearest(steps, wanted) {
  return steps.reduce((best, step) => (Math.abs(step - wanted) < Math.abs(best - wanted) ? step : best), steps[0]);
}

function follow(figure) {
  const data = DATA[figure.dataset.chart], picture = figure.querySelector(".picture");
  const svg = picture.querySelector(".chart"), rule = svg.querySelector(".rule"), tip = picture.querySelector(".tip");
  const steps = [...new Set(data.curves.flatMap((curve) => Object.keys(curve.at).map(Number)))].sort((a, b) => a - b);
  const hide = () => { tip.hidden = true; rule.setAttribute("visibility", "hidden"); };
  const show = (event) => {
    if (!steps.length) return;
    const box = svg.getBoundingClientRect(), scale = box.width / data.width;
    const share = ((event.clientX - box.left) / scale - data.left) / (data.right - data.left);
    const step = nearest(steps, data.first + share * (data.last - data.first));
    const x = data.left + (step - data.first) / Math.max(1, data.last - data.first) * (data.right - data.left);
    rule.setAttribute("x1", x);
    rule.setAttribute("x2", x);
    rule.setAttribute("visibility", "visible");
    tip.replaceChildren(make("div", "tip-step", `step ${step}`));
    for (const curve of data.curves) {
      if (!(step in curve.at)) continue;
      const line = make("div", `tip-line h${curve.style % 8}`);
      line.append(make("i", ""), make("span", "", curve.name), make("b", "", curve.at[step]));
      tip.append(line);
    }
    tip.hidden = false;
    const left = x * scale, room = box.width - left;
    tip.style.left = room > tip.offsetWidth + 16 ? `${left + 12}px` : `${Math.max(0, left - tip.offsetWidth - 12)}px`;
  };
  svg.addEventListener("pointermove", show);
  svg.addEventListener("pointerdown", show);
  svg.addEventListener("pointerleave", hide);
}

function themeControl() {
  const root = document.documentElement, button = document.getElementById("theme");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const set = (name) => {
    root.dataset.theme = name;
    button.textContent = name === "dark" ? "☀" : "☾";
  };
  button.addEventListener("click", () => set(root.dataset.theme === "dark" ? "light" : "dark"));
  dark.addEventListener("change", () => set(dark.matches ? "dark" : "light"));
  set(dark.matches ? "dark" : "light");
}

document.querySelectorAll("figure[data-chart]").forEach(follow);
themeControl();
document.documentElement.dataset.ready = "true";
