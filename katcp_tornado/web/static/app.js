// The page: what comes over the link goes into the store, and from there onto the screen.

import { Detail } from "./detail.js";
import { Devices } from "./devices.js";
import { Link } from "./link.js";
import { addLog } from "./log.js";
import { Requests } from "./requests.js";
import { Store } from "./store.js";
import { $, Table, setText } from "./table.js";

const store = new Store();
const detail = new Detail(store);
const table = new Table(store, (sensor) => detail.open(sensor));
const devices = new Devices(store, table);
const requests = new Requests(store, () => link);
let live = false, layout = 0;

const link = new Link({
  onFrame(frame, first) {
    if ("answer" in frame) { requests.answered(frame); return; }
    if (first) requests.allow(frame.requests);
    const changed = store.take(frame, first);
    store.sweep();
    if (changed.devices || layout !== store.layout) { layout = store.layout; devices.show(); }
    if (changed.devices) requests.devicesChanged();
    if (changed.sensors) table.paint();
    addLog(frame.log, first);
  },
  onState(connected) {
    live = connected;
    document.body.classList.toggle("stale", !connected);
    if (!connected) requests.lost();
    tell();
  },
});

function tell() {
  const left = Math.max(0, Math.ceil((link.retryAt - Date.now()) / 1000));
  setText($("link-text"), live ? "live" : link.retryAt && left > 0 ? `stale: no connection to the server, next attempt in ${left} s` : "stale: connecting to the server");
}

setInterval(() => { table.paint(); if (!live) tell(); }, 1000);
