"use strict";
// Texts from the run reach the page only as textContent; nothing here builds markup from them.

function light(identity) {
  const buttons = document.querySelectorAll(".tag");
  for (const button of buttons) button.setAttribute("aria-pressed", String(button.dataset.shows === identity));
  for (const turn of document.querySelectorAll(".turn")) {
    turn.classList.toggle("lit", identity !== null && turn.dataset.anchor === identity);
  }
}

function scrollOthers(button, identity) {
  for (const list of button.closest(".group").querySelectorAll(".member > ol")) {
    const first = list.querySelector(".turn.lit");
    if (first && !list.contains(button)) list.scrollTop = first.offsetTop - 8;
  }
}

document.addEventListener("click", (event) => {
  const button = event.target.closest(".tag");
  if (!button) return;
  const chosen = button.getAttribute("aria-pressed") === "true" ? null : button.dataset.shows;
  light(chosen);
  if (chosen !== null) scrollOthers(button, chosen);
});

function nearest(points, place) {
  return points.reduce((best, point) => (Math.abs(point[0] - place) < Math.abs(best[0] - place) ? point : best));
}

function line(tag, text, look) {
  const element = document.createElement(tag);
  if (look) {
    const swatch = document.createElement("i");
    swatch.className = "swatch " + look;
    element.append(swatch);
  }
  element.append(text);
  return element;
}

function showReading(area, curves, cursor, reading, event) {
  const box = area.getBoundingClientRect();
  const place = (100 * (event.clientX - box.left)) / box.width;
  const found = curves.map((curve) => [curve, nearest(curve.points, place)]);
  const at = nearest(found.map(([, point]) => point), place);
  cursor.style.left = at[0] + "%";
  const shown = found.filter(([, point]) => Math.abs(point[0] - at[0]) < 3);
  reading.replaceChildren(line("b", "at " + at[1]));
  for (const [curve, point] of shown) reading.append(line("div", curve.name + " " + point[2], curve.look));
  const right = at[0] > 50;
  reading.style.left = right ? "auto" : "calc(" + at[0] + "% + 10px)";
  reading.style.right = right ? "calc(" + (100 - at[0]) + "% + 10px)" : "auto";
}

for (const area of document.querySelectorAll(".area")) {
  const curves = JSON.parse(area.querySelector("script").textContent).filter((curve) => curve.points.length);
  const cursor = document.createElement("div");
  const reading = document.createElement("div");
  cursor.className = "cursor";
  reading.className = "reading";
  area.addEventListener("pointermove", (event) => {
    area.append(cursor, reading);
    showReading(area, curves, cursor, reading, event);
  });
  area.addEventListener("pointerleave", () => {
    cursor.remove();
    reading.remove();
  });
}
