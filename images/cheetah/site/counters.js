// Reads the server's counters once a second and shows them. Totals come from the server; rates are differences of two
// readings over the time between them by the server's own clock.
"use strict";

const PERIOD_MS = 1000;
const CURVE_SECONDS = 60;

const element = (id) => document.getElementById(id);
const number = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
let last = null;
const curve = [];

function bytes(value) {
  const units = ["B", "kB", "MB", "GB"];
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) { value /= 1000; unit += 1; }
  return `${value.toFixed(value < 10 && unit > 0 ? 1 : 0)} ${units[unit]}`;
}

function duration(seconds) {
  const whole = Math.floor(seconds);
  const hours = Math.floor(whole / 3600), minutes = Math.floor(whole / 60) % 60;
  if (hours > 0) return `${hours} h ${minutes} min`;
  return minutes > 0 ? `${minutes} min ${whole % 60} s` : `${whole} s`;
}

function draw(rate) {
  curve.push(rate);
  if (curve.length > CURVE_SECONDS) curve.shift();
  const highest = Math.max(1, ...curve);
  const points = curve.map((value, at) => `${600 - (curve.length - 1 - at) * 10},${85 - 80 * value / highest}`);
  document.querySelector("#curve polyline").setAttribute("points", points.join(" "));
}

function show(now) {
  const seconds = last ? (now.uptime_ms - last.uptime_ms) / 1000 : 0;
  const rate = (name) => (seconds > 0 ? (now[name] - last[name]) / seconds : 0);
  element("tile-requests").textContent = number.format(rate("requests"));
  element("tile-bytes").textContent = bytes(rate("body_bytes"));
  element("tile-connections").textContent = number.format(now.connections);
  element("tile-uptime").textContent = duration(now.uptime_ms / 1000);
  const rows = Object.entries(now).filter(([, value]) => typeof value === "number").map(([name, value]) => {
    const row = document.createElement("tr");
    for (const text of [name.replaceAll("_", " "), number.format(value), last ? number.format(rate(name)) : ""]) {
      row.append(Object.assign(document.createElement("td"), { textContent: text }));
    }
    return row;
  });
  element("all").replaceChildren(...rows);
  if (last) draw(rate("requests"));
  element("state").textContent = "Counted by the server itself; your own look once a second is among the requests.";
  last = now;
}

async function look() {
  try {
    const answer = await fetch("/.exovm/counters.json", { cache: "no-store" });
    if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
    show(await answer.json());
  } catch (error) {
    element("state").textContent = `No figures: ${error.message}.`;
    last = null;
  }
  setTimeout(look, PERIOD_MS);
}

element("address").textContent = `${location.origin}/`;
look();
