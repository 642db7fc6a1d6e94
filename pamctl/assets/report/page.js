"use strict";

// Tables: a button in each heading sorts its column by value; what has no value comes last.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    const numeric = head.dataset.sort === "number";
    const valueOf = (row) => {
      const text = row.cells[column].textContent;
      return numeric ? parseFloat(text) : text;
    };
    button.addEventListener("click", () => {
      const before = head.getAttribute("aria-sort") ?? (numeric ? "ascending" : "descending");
      const sign = before === "ascending" ? -1 : 1;
      const compare = (one, other) => {
        const a = valueOf(one), b = valueOf(other);
        if (!numeric) return sign * a.localeCompare(b, "en", { numeric: true });
        if (isNaN(a) || isNaN(b)) return isNaN(a) - isNaN(b);
        return sign * (a - b);
      };
      body.append(...[...body.rows].sort(compare));
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
    });
  });
}

// Panels: the lists show one of them, open and without its summary.
for (const group of document.querySelectorAll(".choices")) {
  const lists = [...group.querySelectorAll("select")];
  const panels = [...group.querySelectorAll(".choice")];
  const update = () => {
    const chosen = lists.map((list) => list.value).join(" ");
    let found = false;
    for (const panel of panels) {
      panel.hidden = panel.dataset.chosen !== chosen;
      panel.open = !panel.hidden;
      found ||= !panel.hidden;
    }
    group.querySelector("[role=status]").textContent = found ? "" : "Not run: choose another.";
  };
  panels.forEach((panel) => panel.classList.add("chosen"));
  lists.forEach((list) => list.addEventListener("change", update));
  group.querySelector(".controls").hidden = false;
  update();
}

// Figures: Tab reaches one point of each, arrows the others; the tip tells what is pointed at or focused,
// and the other lines step back.
const tip = document.getElementById("tip");
let told = null;

function hide() {
  told?.classList.remove("told");
  told?.closest(".chart").classList.remove("picked");
  told?.closest(".series")?.classList.remove("mine");
  told = null;
  tip.hidden = true;
}

function tell(point) {
  if (point === told) return;
  hide();
  told = point;
  told.classList.add("told");
  const series = told.closest(".series");
  if (series) {
    series.classList.add("mine");
    told.closest(".chart").classList.add("picked");
  }
  tip.textContent = point.getAttribute("aria-label");
  tip.hidden = false;
  const at = point.getBoundingClientRect();
  const room = document.documentElement.clientWidth - tip.offsetWidth - 8;
  const left = at.left + at.width / 2 - tip.offsetWidth / 2;
  const above = at.top - tip.offsetHeight - 8;
  tip.style.left = `${scrollX + Math.max(8, Math.min(left, room))}px`;
  tip.style.top = `${scrollY + (above < 0 ? at.bottom + 8 : above)}px`;
}

function distance(point, event) {
  const at = point.getBoundingClientRect();
  return Math.hypot(at.left + at.width / 2 - event.clientX, at.top + at.height / 2 - event.clientY);
}

for (const chart of document.querySelectorAll(".chart")) {
  const points = [...chart.querySelectorAll(".point")];
  if (points.length === 0) continue;
  let current = points[0];
  for (const point of points) {
    const title = point.querySelector("title");
    point.setAttribute("aria-label", title.textContent);
    title.remove();
    point.setAttribute("tabindex", "-1");
    point.addEventListener("focus", () => tell(point));
    point.addEventListener("blur", hide);
  }
  current.setAttribute("tabindex", "0");
  const reach = (point) => {
    current.setAttribute("tabindex", "-1");
    current = point;
    current.setAttribute("tabindex", "0");
    current.focus();
  };
  chart.addEventListener("keydown", (event) => {
    const place = points.indexOf(current);
    const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
    const next = { Home: 0, End: points.length - 1 }[event.key]
      ?? (event.key in steps ? (place + steps[event.key] + points.length) % points.length : null);
    if (next === null) return;
    event.preventDefault();
    reach(points[next]);
  });
  chart.addEventListener("pointermove", (event) => {
    const distances = points.map((point) => distance(point, event));
    const nearest = Math.min(...distances);
    if (nearest < 24) tell(points[distances.indexOf(nearest)]);
    else hide();
  });
  chart.addEventListener("pointerleave", hide);
}
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") hide();
});

// Light or dark: as the system says until the button is pressed.
const button = document.getElementById("theme");
const system = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (document.documentElement.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";
const showTheme = () => button.setAttribute("aria-pressed", String(isDark()));
button.addEventListener("click", () => {
  document.documentElement.dataset.theme = isDark() ? "light" : "dark";
  showTheme();
});
system.addEventListener("change", showTheme);
button.hidden = false;
showTheme();

// Print: everything that can be opened is open, but for the panels that were not chosen.
let closed = [];
addEventListener("beforeprint", () => {
  closed = [...document.querySelectorAll("details:not([open], .choice)")];
  closed.forEach((details) => { details.open = true; });
});
addEventListener("afterprint", () => {
  closed.forEach((details) => { details.open = false; });
  closed = [];
});
