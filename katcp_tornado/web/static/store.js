// What the page knows: the devices, and their sensors with the last minutes of each number.

export const MINUTES = 5;
const NUMBERS = new Set(["integer", "float", "boolean"]);
const WORDS = { nan: NaN, inf: Infinity, "-inf": -Infinity };

export class Sensor {
  constructor(device, name) {
    this.device = device;
    this.name = name;
    this.key = `${device}\n${name}`;
    this.low = name.toLowerCase();
    this.status = "unknown";
    this.time = null;
    this.value = null;
    this.units = this.type = this.description = "";
    this.version = 0; // changes with every reading
    this.points = []; // [time of arrival in s, number], at most one in half a second
  }

  get number() {
    if (!NUMBERS.has(this.type)) return NaN;
    if (typeof this.value === "string") return this.value in WORDS ? WORDS[this.value] : Number(this.value);
    return this.value === null ? NaN : Number(this.value);
  }

  update(row, now) {
    const [, status, time, value, ...info] = row;
    if (info.length) [this.units, this.type, this.description] = info;
    this.status = status;
    if (status !== "unreachable" || value !== null) { // while it is away, the last value stays, in grey
      this.value = value;
      this.time = time;
    }
    this.version++;
    if (!NUMBERS.has(this.type)) return;
    const number = status === "nominal" || status === "warn" || status === "error" ? this.number : NaN;
    const points = this.points, last = points.length ? points[points.length - 1] : null;
    if (last && now - last[0] < 0.5 && Number.isFinite(last[1]) && Number.isFinite(number)) last[1] = number;
    else points.push([now, number]);
    let old = 0; // the last one before the window says where the line begins
    while (old + 1 < points.length && points[old + 1][0] < now - MINUTES * 60) old++;
    if (old > 60 || points.length > 700) points.splice(0, Math.max(old, points.length - 700));
  }

  get text() {
    const value = this.value;
    if (value === null) return "–";
    if (typeof value === "number" && this.type === "timestamp") return stamp(value);
    if (typeof value === "number" && !Number.isInteger(value)) return short(value);
    if (typeof value === "boolean") return value ? "true" : "false";
    return String(value);
  }
}

function short(value) {
  const size = Math.abs(value);
  if (size >= 1e7 || size < 1e-4) return value.toExponential(5);
  return String(Number(value.toPrecision(7)));
}

function stamp(seconds) {
  const date = new Date(seconds * 1000);
  return Number.isNaN(date.getTime()) ? String(seconds) : date.toISOString().replace("T", " ").slice(0, 19);
}

export class Store {
  constructor() {
    this.devices = new Map();
    this.sensors = new Map(); // key -> Sensor
    this.offset = 0; // of the server's clock to ours, in s
    this.layout = 0; // changes when sensors come or go
  }

  now() { return Date.now() / 1000 + this.offset; }

  // Returns what has changed: {devices, sensors}, each true or false.
  take(frame, first) {
    this.offset = frame.now - Date.now() / 1000;
    if (first) { // what has gone meanwhile is not told
      this.old = new Set(this.sensors.keys());
      const here = new Set((frame.devices || []).map((device) => device.name));
      for (const name of [...this.devices.keys()]) if (!here.has(name)) this.drop(name);
    }
    for (const device of frame.devices || []) {
      device.at = Date.now();
      this.devices.set(device.name, device);
    }
    for (const name of frame.gone || []) this.drop(name);
    for (const [device, rows] of frame.sensors || []) {
      for (const row of rows) this.row(device, row, frame.now);
    }
    return { devices: Boolean(first || frame.devices || frame.gone), sensors: Boolean(first || frame.sensors || frame.gone) };
  }

  // A sensor that the device has lost while this page was away never comes again: told from those once it is synced.
  sweep() {
    if (!this.old || [...this.devices.values()].some((device) => device.sync === "syncing")) return;
    for (const key of this.old) if (this.sensors.delete(key)) this.layout++;
    this.old = null;
  }

  row(device, row, now) {
    const key = `${device}\n${row[0]}`;
    if (this.old) this.old.delete(key);
    if (row.length === 1) {
      if (this.sensors.delete(key)) this.layout++;
      return;
    }
    let sensor = this.sensors.get(key);
    if (!sensor) {
      sensor = new Sensor(device, row[0]);
      this.sensors.set(key, sensor);
      this.layout++;
    }
    sensor.update(row, now);
  }

  drop(name) {
    this.devices.delete(name);
    for (const [key, sensor] of this.sensors) if (sensor.device === name) { this.sensors.delete(key); this.layout++; }
  }
}
