// One sensor in large.

import { colour, drawPoints } from "./plot.js";
import { $, ageText, setText } from "./table.js";

export class Detail {
  constructor(store) {
    this.store = store;
    this.sensor = null;
    $("detail-close").addEventListener("click", () => this.close());
    $("detail").addEventListener("keydown", (event) => { if (event.key === "Escape") this.close(); });
    setInterval(() => this.show(), 500);
  }

  open(sensor) {
    this.back = document.activeElement;
    this.sensor = sensor;
    $("detail").hidden = false;
    this.show();
    $("detail-close").focus();
  }

  close() {
    this.sensor = null;
    $("detail").hidden = true;
    if (this.back && this.back.isConnected) this.back.focus();
  }

  show() {
    const sensor = this.sensor && this.store.sensors.get(this.sensor.key);
    if (!this.sensor) return;
    if (!sensor) { setText($("detail-value"), "The device has this sensor no longer."); return; }
    setText($("detail-name"), sensor.name);
    setText($("detail-text"), [sensor.device, sensor.type, sensor.description].filter(Boolean).join(" · "));
    const age = sensor.time === null ? "" : ` · ${ageText(this.store.now() - sensor.time)} ago`;
    setText($("detail-value"), `${sensor.text} ${sensor.units} · ${sensor.status}${age}`);
    const canvas = $("detail-plot"), width = canvas.clientWidth;
    canvas.hidden = !sensor.points.length;
    if (!sensor.points.length || !width) return;
    const range = drawPoints(canvas, width, 130, sensor, this.store.now(), 8, 84);
    if (range === null) return;
    const context = canvas.getContext("2d");
    context.fillStyle = colour("soft");
    context.font = "12px system-ui, sans-serif";
    const low = String(Number(range[0].toPrecision(6))), high = String(Number(range[1].toPrecision(6)));
    if (range[0] === range[1]) context.fillText(low, 0, 69);
    else { context.fillText(high, 0, 14); context.fillText(low, 0, 126); }
    canvas.setAttribute("aria-label", `Last minutes, between ${low} and ${high}`);
  }
}
