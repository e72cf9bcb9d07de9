// Draws the chosen request. Whatever the machine said is only ever put into text nodes.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const SVG = "http://www.w3.org/2000/svg";
  const LANES = ["backend", "NIC receive queue", "environment", "NIC transmit queue", "disk"];
  const LABEL_PX = 190, WIDTH = 1222, RIGHT_PX = 14, ROW = 24, GAP = 12;

  const element = (name, text, attributes = {}) => {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  };
  const shape = (name, attributes, text) => {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    return made;
  };
  const us = (cycles) => cycles * 1000 / data.tsc_khz;
  const number = (value, digits) => value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
  const time = (cycles) => number(us(cycles), us(cycles) < 100 ? 1 : 0) + " µs";
  const both = (cycles) => time(cycles) + " (" + number(cycles, 0) + " cycles)";
  const percent = (part) => number(part * 100, part < 0.1 ? 1 : 0) + " %";

  // Colours: guest code in blues and greens, the VMM's work in oranges and reds, waiting grey, the client violet.
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const GUEST = [212, 184, 158, 232, 134, 196, 172, 222], VMM = [28, 8, 42, 350, 20, 50];
  const place = data.layers.map((layer, index) => data.layers.slice(0, index).filter((other) => other.kind === layer.kind).length);
  const colour = (index) => {
    const kind = data.layers[index].kind;
    if (kind === "wait") return "var(--wait)";
    if (kind === "client") return "var(--client)";
    const hues = kind === "guest" ? GUEST : VMM;
    const hue = hues[place[index] % hues.length];
    return dark.matches ? `hsl(${hue} 62% 66%)` : `hsl(${hue} 62% ${kind === "guest" ? 38 : 42}%)`;
  };
  const textColour = (index) => {
    const kind = data.layers[index].kind;
    return kind === "wait" ? "var(--wait-text)" : kind === "client" ? "var(--client-text)" : "var(--on-colour)";
  };

  const tip = byId("tip");
  const explain = (node, text) => {
    const show = (x, y) => {
      tip.textContent = text;
      tip.hidden = false;
      const box = tip.getBoundingClientRect();
      tip.style.left = Math.max(4, Math.min(x + 12, innerWidth - box.width - 8)) + "px";
      tip.style.top = (y + 18 + box.height > innerHeight ? y - box.height - 10 : y + 18) + "px";
    };
    node.addEventListener("mousemove", (event) => show(event.clientX, event.clientY));
    node.addEventListener("focus", () => { const box = node.getBoundingClientRect(); show(box.left, box.bottom - 14); });
    for (const end of ["mouseleave", "blur"]) node.addEventListener(end, () => { tip.hidden = true; });
  };
  addEventListener("keydown", (event) => { if (event.key === "Escape") tip.hidden = true; });

  const isWait = (index) => data.layers[index].kind === "wait" || data.layers[index].kind === "client" || data.layers[index].name === "disk";

  const sums = (request) => {
    const cycles = new Map();
    for (const [from, to, layer] of request.path) cycles.set(layer, (cycles.get(layer) || 0) + to - from);
    return cycles;
  };

  // Time to pixels. Long waits may be shortened, so that what is done around them can be seen.
  const scale = (request, shorten) => {
    const work = request.path.reduce((sum, [from, to, layer]) => sum + (isWait(layer) ? 0 : to - from), 0);
    const cap = Math.max(work * 0.22, 1);
    const steps = [];
    let at = 0;
    for (const [from, to, layer] of request.path) {
      const long = shorten && isWait(layer) && to - from > cap;
      const length = long ? cap : to - from;
      steps.push({ from, to, start: at, length, long });
      at += length;
    }
    const width = WIDTH - LABEL_PX - RIGHT_PX;
    const x = (cycles) => {
      const step = steps.find((one) => cycles <= one.to) || steps[steps.length - 1];
      if (!step) return LABEL_PX;
      const part = step.to > step.from ? Math.max(0, Math.min(1, (cycles - step.from) / (step.to - step.from))) : 0;
      return LABEL_PX + (step.start + part * step.length) / Math.max(at, 1) * width;
    };
    return { x, steps };
  };

  const lanes = (request) => {
    const shorten = byId("shorten").checked;
    const { x, steps } = scale(request, shorten);
    const depth = 1 + Math.max(0, ...request.bars.filter((bar) => bar[0] === 2).map((bar) => bar[4]));
    const used = LANES.map((name, lane) => ({ name, lane, rows: lane === 2 ? depth : 1, bars: request.bars.filter((bar) => bar[0] === lane) }))
      .filter((lane) => lane.bars.length > 0);
    let y = 30;
    for (const lane of used) { lane.y = y; y += lane.rows * ROW + GAP; }
    const svg = shape("svg", { viewBox: `0 0 ${WIDTH} 10`, role: "group", "aria-label": "Lanes" });
    const defs = shape("defs", {});
    const head = shape("marker", { id: "head", viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 7, markerHeight: 7, orient: "auto" });
    head.append(shape("path", { d: "M0 0L8 4L0 8z" }));
    defs.append(head);
    svg.append(defs);
    const text = (at, height, words, cls = "", anchor = "start") => svg.append(shape("text", { x: at, y: height, class: cls, "text-anchor": anchor }, words));

    const bar = (from, to, top, height, fill, words, label, cls, ink) => {
      const [left, right] = [x(from), x(to)];
      const width = Math.max(right - left, 1);
      const rect = shape("rect", { x: left, y: top, width, height, rx: 2, fill, class: cls });
      if (cls !== "else") { rect.setAttribute("tabindex", "0"); rect.setAttribute("role", "img"); rect.setAttribute("aria-label", words); }
      explain(rect, words);
      svg.append(rect);
      if (label && width > label.length * 6.6 + 8) {
        const node = shape("text", { x: left + 5, y: top + height / 2 + 4 }, label);
        if (ink) node.style.fill = ink;
        svg.append(node);
      }
    };
    for (const lane of used) {
      text(8, lane.y + 16, lane.name);
      svg.append(shape("line", { x1: LABEL_PX, x2: WIDTH - RIGHT_PX, y1: lane.y + lane.rows * ROW + GAP / 2, y2: lane.y + lane.rows * ROW + GAP / 2, class: "lane" }));
      for (const [, layer, from, to, level, subject] of lane.bars) {
        const name = data.layers[layer].name;
        const words = `${name}${subject ? ", " + subject : ""}\n${both(to - from)}\nfrom ${time(from)} to ${time(to)}`;
        bar(from, to, lane.y + (lane.lane === 2 ? level * ROW : 0) + 1, ROW - 3, colour(layer), words, name, "", textColour(layer));
      }
    }
    const middle = (lane) => { const found = used.find((one) => one.lane === lane); return found && [found.y, found.y + found.rows * ROW]; };
    for (const [at, from, to] of request.arrows) {
      const [start, end] = [middle(from), middle(to)];
      if (!start || !end) continue;
      const down = end[0] > start[0];
      svg.append(shape("path", { d: `M${x(at)} ${down ? start[1] - 2 : start[0] + 1}L${x(at)} ${down ? end[0] - 1 : end[1] + 1}`, class: "arrow" }));
    }
    y += 18;
    if (request.others.length) { text(8, y, "meanwhile", "faint"); y += 6; }
    for (const other of request.others) {
      text(8, y + 15, other.name.length > 27 ? other.name.slice(0, 26) + "…" : other.name, "faint");
      const hues = new Map();
      for (const [from, to, what] of other.bars) {
        if (!hues.has(what)) hues.set(what, [...what].reduce((sum, letter) => (sum * 31 + letter.codePointAt(0)) % 360, 7));
        const idle = what === "wait" || what === "poll" || what === "idle poll" || what === "asleep";
        const fill = idle ? "var(--wait)" : `hsl(${hues.get(what)} 40% 60%)`;
        bar(from, to, y + 2, 18, fill, `${other.name}: ${what}\n${both(to - from)}`, what, "else");
      }
      y += 22;
    }
    y += 8;
    // The axis, and where it is shortened.
    let last = -1e9;
    for (const step of steps) {
      const left = x(step.from);
      if (step.long) {
        const right = x(step.to);
        for (const edge of [left, right]) svg.append(shape("line", { x1: edge, x2: edge, y1: 20, y2: y, class: "break" }));
        text((left + right) / 2, 14, "⋯ " + time(step.to - step.from) + " ⋯", "faint", "middle");
        last = right;
      }
    }
    const ticks = [0, request.cycles];
    for (let part = 1; part < 10; part++) {
      const at = request.cycles * part / 10;
      if (!steps.some((step) => step.long)) ticks.push(at);
    }
    if (steps.some((step) => step.long)) for (const step of steps) if (step.to - step.from > request.cycles / 50 || step.long) ticks.push(step.from);
    let shown = [];
    for (const at of ticks) {
      const px = x(at);
      if (shown.some((other) => Math.abs(other - px) < 64)) continue;
      shown.push(px);
      svg.append(shape("line", { x1: px, x2: px, y1: y - 4, y2: y, class: "lane" }));
      text(px, y + 12, time(at), "faint", px > WIDTH - 60 ? "end" : px < LABEL_PX + 30 ? "start" : "middle");
    }
    svg.setAttribute("viewBox", `0 0 ${WIDTH} ${y + 20}`);
    byId("lanes").replaceChildren(svg);
  };

  const strip = (request) => {
    const parts = request.path.map(([from, to, layer]) => {
      const part = (to - from) / Math.max(request.cycles, 1);
      const made = element("div", undefined, { role: "listitem", tabindex: "0" });
      const name = data.layers[layer].name;
      made.style.cssText = `flex: ${part} 0 0; background: ${colour(layer)}; color: ${textColour(layer)}`;
      const px = part * WIDTH;
      if (px > name.length * 6.2 + 10) made.append(element("span", name), element("br"), element("span", time(to - from)));
      else if (px < 14) made.className = "narrow";
      made.setAttribute("aria-label", `${name}: ${time(to - from)}`);
      explain(made, `${name}\n${both(to - from)}, ${percent(part)}`);
      return made;
    });
    byId("strip").replaceChildren(...parts);
  };

  const headline = (request) => {
    const most = [...sums(request)].sort((one, other) => other[1] - one[1]).filter(([, cycles], place) => place === 0 || cycles > request.cycles * 0.03).slice(0, 3);
    const line = byId("headline");
    line.replaceChildren(element("b", time(request.cycles)), " end to end. Most of it: ");
    most.forEach(([layer, cycles], place) => {
      if (place) line.append(", ");
      line.append(element("b", data.layers[layer].name), ` ${time(cycles)} (${percent(cycles / Math.max(request.cycles, 1))})`);
    });
    const many = request.frames.length > 1 ? `${request.frames.length} frames` : request.frames[0];
    const detail = `${request.packets.join(" + ")} → ${many}, ${number(request.at_s, 3)} s after the recording began`;
    const more = (request.requests > 1 ? `, ${request.requests} requests in one packet` : "") + (request.cut ? "; not all records of that time are kept" : "");
    const small = element("div", detail + more + ".", { class: "faint" });
    small.style.fontSize = "13px";
    line.append(small);
  };

  const table = (request) => {
    const own = sums(request);
    const head = element("tr");
    for (const name of ["layer", "this request", "of it", "", "p50", "p90", "p99", "p99.9", "max", "of all time", "requests"]) head.append(element("th", name, { scope: "col" }));
    const most = Math.max(1, ...own.values());
    const inCycles = byId("cycles").checked;
    byId("unit").textContent = inCycles ? "cycles" : "microseconds";
    const micro = (cycles) => {
      const cell = element("td", inCycles ? number(cycles, 0) : number(us(cycles), 1));
      cell.title = inCycles ? number(us(cycles), 1) + " µs" : number(cycles, 0) + " cycles";
      return cell;
    };
    const rows = data.table.map((row) => {
      const line = element("tr", undefined, row.layer === null ? { class: "total" } : {});
      const name = element("td");
      const cycles = row.layer === null ? request.cycles : own.get(row.layer) || 0;
      const meter = element("td", undefined, { class: "meter" });
      if (row.layer !== null) {
        const swatch = element("span", undefined, { class: "swatch" });
        swatch.style.background = colour(row.layer);
        name.append(swatch, data.layers[row.layer].name);
        const filled = element("i");
        filled.style.cssText = `width: ${cycles / most * 100}%; background: ${colour(row.layer)}`;
        if (cycles) meter.append(filled);
      } else name.append("end to end");
      const mine = micro(cycles);
      mine.className = "own";
      line.append(name, mine, element("td", cycles ? percent(cycles / Math.max(request.cycles, 1)) : ""), meter, ...row.cycles.map(micro));
      line.append(element("td", percent(row.share)), element("td", number(row.requests, 0)));
      return line;
    });
    const total = rows.shift();
    const top = element("thead"), body = element("tbody");
    top.append(head);
    body.append(...rows, total);
    byId("layers").replaceChildren(top, body);
  };

  let chosen = 0;
  const draw = () => {
    const request = data.requests[chosen];
    if (!request) return;
    headline(request);
    strip(request);
    lanes(request);
    table(request);
  };
  const all = data.table[0];
  byId("about").textContent = `${data.machine || "machine"} · ${data.image || "image"} · ${number(all.requests, 0)} requests; end to end p50 ${time(all.cycles[0])}, p99 ${time(all.cycles[2])}, p99.9 ${time(all.cycles[3])}, slowest ${time(all.cycles[4])}`;
  byId("remarks").append(...data.remarks.map((line) => element("li", line)));
  data.requests.forEach((request, place) => {
    const label = element("label");
    const input = element("input", undefined, { type: "radio", name: "request", value: place });
    input.checked = place === 0;
    input.addEventListener("change", () => { chosen = place; location.hash = String(place); draw(); });
    label.append(input, request.title + " ", element("small", time(request.cycles)));
    byId("choice").append(label);
  });
  const linked = Number(location.hash.slice(1));
  if (data.requests[linked]) { chosen = linked; byId("choice").elements[linked].checked = true; }
  for (const box of ["shorten", "cycles"]) byId(box).addEventListener("change", draw);
  dark.addEventListener("change", draw);
  if (data.requests.length === 0) byId("headline").textContent = "No request was recorded from beginning to end.";
  draw();
})();
