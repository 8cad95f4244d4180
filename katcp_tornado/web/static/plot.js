// Small plots on canvas, in the colours of the style sheet.

import { MINUTES } from "./store.js";

const OPENED = performance.now();

// Seconds that plots show: what this page can have seen, at least one minute.
function span() { return Math.min(MINUTES * 60, Math.max(60, (performance.now() - OPENED) / 1000)); }

let colours = null;
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { colours = null; });

export function colour(name) {
  colours ??= getComputedStyle(document.documentElement);
  return colours.getPropertyValue(`--${name}`).trim();
}

export function prepare(canvas, width, height) {
  const scale = devicePixelRatio || 1;
  const w = Math.round(width * scale), h = Math.round(height * scale);
  if (canvas.width !== w || canvas.height !== h) { canvas.width = w; canvas.height = h; }
  const context = canvas.getContext("2d");
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.clearRect(0, 0, width, height);
  return context;
}

// Draws the points of a sensor as steps, up to now. Returns [lowest, highest], or null if there is nothing to draw.
export function drawPoints(canvas, width, height, sensor, now, margin = 2, left = 0) {
  const context = prepare(canvas, width, height);
  const seconds = span(), from = now - seconds, points = sensor.points;
  let low = Infinity, high = -Infinity, start = 0;
  for (let i = points.length - 1; i >= 0; i--) {
    if (Number.isFinite(points[i][1])) { low = Math.min(low, points[i][1]); high = Math.max(high, points[i][1]); }
    start = i;
    if (points[i][0] < from) break;
  }
  if (low === Infinity) return null;
  const range = high - low, room = width - left;
  const x = (time) => left + Math.max(0, (time - from) / seconds) * room;
  const y = (value) => range > 0 && Number.isFinite(range) ? height - margin - ((value - low) / range) * (height - 2 * margin) : height / 2;
  context.beginPath();
  let drawing = false;
  for (let i = start; i < points.length; i++) {
    const [time, value] = points[i], end = i + 1 < points.length ? points[i + 1][0] : now;
    if (!Number.isFinite(value)) { drawing = false; continue; }
    if (drawing) context.lineTo(x(time), y(value)); else context.moveTo(x(time), y(value));
    context.lineTo(x(end), y(value));
    drawing = true;
  }
  context.strokeStyle = colour(sensor.status === "unreachable" ? "away" : "accent");
  context.lineWidth = 1.4;
  context.lineJoin = "round";
  context.stroke();
  return [low, high];
}

export function clear(canvas, width, height) { prepare(canvas, width, height); }
