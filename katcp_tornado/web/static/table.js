// The table of sensors: as many rows as can be seen, painted only where something has changed.

import { clear, drawPoints } from "./plot.js";

const ROW = 32, SPARE = 6, PLOT_WIDTH = 130, PLOT_HEIGHT = 24, REDRAW = 1000;
const ORDER = ["failure", "error", "warn", "unreachable", "unknown", "inactive", "nominal"];
const LIVE = new Set(["value", "status", "age"]);
const byName = new Intl.Collator("en", { numeric: true }).compare;
export const $ = (id) => document.getElementById(id);

export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function ageText(seconds) {
  if (!(seconds >= 0)) return "0 s";
  if (seconds < 100) return `${Math.floor(seconds)} s`;
  if (seconds < 6000) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 360000) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} d`;
}

class Row {
  constructor(open) {
    this.tr = document.createElement("tr");
    this.cells = {};
    for (const name of ["name", "value", "units", "plot", "status", "age", "description"]) {
      const cell = document.createElement("td");
      cell.className = name;
      this.cells[name] = cell;
      this.tr.append(cell);
    }
    this.button = document.createElement("button");
    this.button.type = "button";
    this.of = document.createElement("span");
    this.of.className = "of";
    this.label = document.createElement("span");
    this.button.append(this.of, this.label);
    this.cells.name.append(this.button);
    this.button.addEventListener("click", () => open(this.sensor));
    this.canvas = document.createElement("canvas");
    this.canvas.setAttribute("aria-hidden", "true");
    this.cells.plot.append(this.canvas);
    this.chip = document.createElement("span");
    this.cells.status.append(this.chip);
    this.sensor = null;
    this.version = -1;
    this.drawn = 0;
    this.index = -1;
  }

  show(sensor, index, several, plots, now, clock) {
    if (this.index !== index) { this.index = index; this.tr.setAttribute("aria-rowindex", index + 2); }
    const other = this.sensor !== sensor;
    this.sensor = sensor;
    const changed = other || this.version !== sensor.version;
    setText(this.of, several ? `${sensor.device} ` : "");
    if (changed) {
      this.version = sensor.version;
      const { name, value, units, description } = this.cells;
      setText(this.label, sensor.name);
      if (other) name.title = sensor.name;
      const text = sensor.text;
      if (value.textContent !== text) { value.textContent = text; value.title = text; }
      value.classList.toggle("text", typeof sensor.value === "string");
      setText(units, sensor.units);
      if (description.textContent !== sensor.description) { description.textContent = sensor.description; description.title = sensor.description; }
      setText(this.chip, sensor.status);
      this.chip.className = `chip ${sensor.status}`;
      this.tr.classList.toggle("away", sensor.status === "unreachable");
    }
    setText(this.cells.age, sensor.time === null ? "" : ageText(now - sensor.time));
    if (other || clock - this.drawn > REDRAW) {
      this.drawn = clock;
      if (sensor.points.length && plots) drawPoints(this.canvas, PLOT_WIDTH, PLOT_HEIGHT, sensor, now);
      else if (other) clear(this.canvas, PLOT_WIDTH, PLOT_HEIGHT);
    }
  }
}

export class Table {
  constructor(store, open) {
    this.store = store;
    this.open = open;
    this.rows = [];
    this.first = 0; // index in the list of what the first row shows
    this.list = [];
    this.layout = -1;
    this.sort = { by: "name", down: false };
    this.device = null; // show this one only
    this.sorted = 0;
    this.wanted = 0;
    this.top = this.spacer();
    this.bottom = this.spacer();
    this.body = $("rows");
    this.plots = document.querySelector("th.plot");
    this.body.append(this.top, this.bottom);
    this.scroll = $("scroll");
    this.scroll.addEventListener("scroll", () => this.paint(), { passive: true });
    new ResizeObserver(() => this.paint()).observe(this.scroll);
    $("filter").addEventListener("input", () => this.refilter());
    $("status").addEventListener("change", () => this.refilter());
    for (const header of document.querySelectorAll("th[data-sort]")) {
      header.firstElementChild.addEventListener("click", () => this.sortBy(header));
    }
  }

  spacer() {
    const row = document.createElement("tr"), cell = document.createElement("td");
    row.className = "spacer";
    row.setAttribute("aria-hidden", "true");
    cell.colSpan = 7;
    row.append(cell);
    return row;
  }

  sortBy(header) {
    const by = header.dataset.sort;
    this.sort = { by, down: this.sort.by === by && !this.sort.down };
    for (const other of document.querySelectorAll("th[aria-sort]")) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", this.sort.down ? "descending" : "ascending");
    this.refilter();
  }

  refilter() { this.layout = -1; this.scroll.scrollTop = 0; this.paint(); }

  // Which sensors are shown, and in what order.
  arrange() {
    const text = $("filter").value.trim(), status = $("status").value;
    const regex = /^\/(.+)\/$/.exec(text);
    let fits = (sensor) => sensor.low.includes(text.toLowerCase());
    let bad = false;
    if (regex) {
      try { const pattern = new RegExp(regex[1], "i"); fits = (sensor) => pattern.test(sensor.name); } catch { bad = true; }
    }
    $("filter").classList.toggle("bad", bad);
    $("filter").setAttribute("aria-invalid", bad);
    const list = [];
    for (const sensor of this.store.sensors.values()) {
      if (this.device !== null && sensor.device !== this.device) continue;
      if (status === "bad" ? sensor.status === "nominal" : status && sensor.status !== status) continue;
      if (fits(sensor)) list.push(sensor);
    }
    const { by, down } = this.sort;
    const names = (a, b) => byName(a.device, b.device) || byName(a.name, b.name);
    const compare = {
      name: names,
      value: (a, b) => compareValues(a, b) || names(a, b),
      status: (a, b) => ORDER.indexOf(a.status) - ORDER.indexOf(b.status) || names(a, b),
      age: (a, b) => (b.time ?? -Infinity) - (a.time ?? -Infinity) || names(a, b),
    }[by];
    list.sort(down ? (a, b) => compare(b, a) : compare);
    this.list = list;
    this.layout = this.store.layout;
    this.sorted = Date.now();
    const all = this.store.sensors.size;
    setText($("count"), list.length === all ? `${all} ${all === 1 ? "sensor" : "sensors"}` : `${list.length} of ${all} sensors`);
    $("table").setAttribute("aria-rowcount", list.length + 1);
    const empty = $("empty");
    empty.hidden = list.length > 0;
    setText(empty, all ? "No sensor fits the filter." : "No sensors yet.");
  }

  paint() {
    if (!this.wanted) this.wanted = requestAnimationFrame(() => { this.wanted = 0; this.paintNow(); });
  }

  paintNow() {
    const clock = Date.now(), live = LIVE.has(this.sort.by) || $("status").value;
    if (this.layout !== this.store.layout || (live && clock - this.sorted > 1000)) this.arrange();
    // What is read of the layout is read before anything is written: each change of the two costs a layout.
    const height = this.scroll.clientHeight, plots = this.plots.offsetParent !== null, count = this.list.length;
    const first = Math.max(0, Math.min(Math.floor(this.scroll.scrollTop / ROW) - SPARE, count - 1));
    const shown = Math.max(0, Math.min(count - first, Math.ceil(height / ROW) + 2 * SPARE));
    while (this.rows.length < shown) {
      const row = new Row(this.open);
      this.rows.push(row);
      this.body.insertBefore(row.tr, this.bottom);
    }
    while (this.rows.length > shown) this.rows.pop().tr.remove();
    this.turn(first);
    const several = this.store.devices.size > 1 && this.device === null, now = this.store.now();
    for (let i = 0; i < shown; i++) this.rows[i].show(this.list[first + i], first + i, several, plots, now, clock);
    this.stretch(this.top, first);
    this.stretch(this.bottom, count - first - shown);
  }

  // Rows that are scrolled out on one side come in on the other; all others keep what they show, and the focus.
  turn(first) {
    const by = Math.max(-this.rows.length, Math.min(first - this.first, this.rows.length));
    this.first = first;
    if (by === 0) return;
    const moved = by > 0 ? this.rows.splice(0, by) : this.rows.splice(by);
    const focused = moved.some((row) => row.tr.contains(document.activeElement));
    if (by > 0) this.bottom.before(...moved.map((row) => row.tr));
    else this.top.after(...moved.map((row) => row.tr));
    this.rows = by > 0 ? [...this.rows, ...moved] : [...moved, ...this.rows];
    if (focused) this.scroll.focus({ preventScroll: true });
  }

  stretch(spacer, rows) {
    const height = `${rows * ROW}px`, cell = spacer.firstElementChild;
    if (cell.style.height !== height) cell.style.height = height;
    spacer.hidden = rows <= 0;
  }
}

function compareValues(a, b) {
  const x = a.number, y = b.number;
  if (!Number.isNaN(x) || !Number.isNaN(y)) return Number.isNaN(x) ? 1 : Number.isNaN(y) ? -1 : x < y ? -1 : x > y ? 1 : 0;
  return byName(a.text, b.text);
}
