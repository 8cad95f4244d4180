// The cards of the devices: state, countdown, last error, and the history of the connection as a strip.

import { colour, prepare } from "./plot.js";
import { $, setText } from "./table.js";

const MINUTES = 15;
const COLOURS = { connected: "good", connecting: "warn", negotiating: "warn", sleeping: "error", closed: "away" };

class Card {
  constructor(select) {
    this.item = document.createElement("li");
    this.button = document.createElement("button");
    this.button.type = "button";
    this.button.className = "device";
    this.parts = {};
    const top = document.createElement("span");
    top.className = "top";
    for (const [name, parent] of [["title", top], ["state", top], ["address", null], ["error", null]]) {
      const part = document.createElement(parent ? "span" : "div");
      part.className = name;
      this.parts[name] = part;
      (parent || this.button).append(part);
    }
    this.button.prepend(top);
    this.strip = document.createElement("canvas");
    this.strip.className = "strip";
    this.strip.setAttribute("role", "img");
    this.button.append(this.strip);
    this.item.append(this.button);
    this.button.addEventListener("click", () => select(this.name));
  }

  show(device, selected, count) {
    this.name = device.name;
    this.device = device;
    setText(this.parts.title, device.name);
    this.button.dataset.state = device.state;
    this.button.setAttribute("aria-pressed", selected);
    const protocol = device.protocol ? ` · KATCP ${device.protocol}` : "";
    const address = device.address === device.name ? "" : `${device.address} · `;
    setText(this.parts.address, `${address}${count} ${count === 1 ? "sensor" : "sensors"}${protocol}`);
    setText(this.parts.error, device.error || "");
    this.parts.error.title = device.error || "";
    this.tick(0);
  }

  tick(now) {
    const device = this.device;
    setText(this.parts.state, stateText(device));
    if (now) this.draw(now);
  }

  draw(now) {
    const width = this.strip.clientWidth, height = 9, from = now - MINUTES * 60, steps = this.device.steps;
    if (!width) return;
    const context = prepare(this.strip, width, height);
    context.fillStyle = colour("away-soft");
    context.fillRect(0, 0, width, height);
    const x = (time) => Math.max(0, (time - from) / (MINUTES * 60)) * width;
    // First those who are well, so that a short outage is still seen above them.
    for (const pass of [true, false]) {
      steps.forEach(([time, state], i) => {
        const end = i + 1 < steps.length ? steps[i + 1][0] : now;
        if (end < from || (state === "connected") !== pass) return;
        context.fillStyle = colour(COLOURS[state] || "away");
        context.fillRect(x(time), 0, Math.max(pass ? 0 : 1.5, x(end) - x(time)), height);
      });
    }
    // Counted by the steps: the history has the last few failures only, and attempts that fail drive a loss out of it.
    const isLoss = ([time, state], i) => i > 0 && time > from && state !== "closed" && steps[i - 1][1] === "connected";
    const lost = steps.filter(isLoss).length;
    const label = `Last ${MINUTES} minutes: ${lost === 0 ? "no link lost" : lost === 1 ? "1 link lost" : `${lost} links lost`}`;
    if (this.strip.title !== label) { this.strip.title = label; this.strip.setAttribute("aria-label", label); }
  }
}

function stateText(device) {
  if (device.state === "sleeping" && device.retry !== null) {
    const left = device.retry - (Date.now() - device.at) / 1000;
    return left > 0 ? `next attempt in ${Math.ceil(left)} s` : "trying again";
  }
  if (device.state === "connected") return device.sync === "syncing" ? "reading the sensors" : "connected";
  return device.state;
}

export class Devices {
  constructor(store, table) {
    this.store = store;
    this.table = table;
    this.cards = new Map();
    setInterval(() => this.tick(), 500);
  }

  select(name) {
    this.table.device = this.table.device === name ? null : name;
    this.show();
    this.table.refilter();
  }

  show() {
    const counts = new Map();
    for (const sensor of this.store.sensors.values()) counts.set(sensor.device, (counts.get(sensor.device) || 0) + 1);
    for (const [name, card] of this.cards) if (!this.store.devices.has(name)) { card.item.remove(); this.cards.delete(name); }
    if (this.table.device !== null && !this.store.devices.has(this.table.device)) this.table.device = null;
    for (const [name, device] of this.store.devices) {
      let card = this.cards.get(name);
      if (!card) {
        card = new Card((chosen) => this.select(chosen));
        this.cards.set(name, card);
        $("devices").append(card.item);
      }
      card.show(device, this.table.device === name, counts.get(name) || 0);
      card.draw(this.store.now());
    }
  }

  tick() { for (const card of this.cards.values()) card.tick(this.store.now()); }
}
