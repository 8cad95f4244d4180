// Requests, where the server allows them: with the device's own help, completion and history.

import { $, setText } from "./table.js";

const ANSWERS = 50, HISTORY = 100;

// Words as a person writes them: blanks part them, "quotes" hold them together.
export function words(line) {
  const found = [];
  for (const match of line.matchAll(/"((?:[^"\\]|\\.)*)"|(\S+)/g)) {
    found.push(match[1] !== undefined ? match[1].replace(/\\(.)/g, "$1") : match[2]);
  }
  return found;
}

export class Requests {
  constructor(store, link) {
    this.store = store;
    this.link = link;
    this.waiting = new Map();
    this.help = new Map(); // device -> Map of name -> help
    this.history = [];
    this.at = 0;
    this.number = 0;
    this.line = $("ask-line");
    $("ask").addEventListener("submit", (event) => { event.preventDefault(); this.submit(); });
    $("ask-device").addEventListener("change", () => this.learn());
    this.line.addEventListener("input", () => this.showHelp());
    this.line.addEventListener("keydown", (event) => this.key(event));
  }

  allow(allowed) { $("requests").hidden = !allowed; this.allowed = allowed; }

  devicesChanged() {
    if (!this.allowed) return;
    const select = $("ask-device"), names = [...this.store.devices.keys()];
    if (names.join("\n") !== [...select.options].map((option) => option.value).join("\n")) {
      const chosen = select.value;
      select.replaceChildren(...names.map((name) => new Option(name, name)));
      if (names.includes(chosen)) select.value = chosen;
    }
    this.learn();
  }

  learn() {
    const device = $("ask-device").value, known = this.store.devices.get(device);
    if (known && known.state === "connected" && this.help.get(device)?.since !== known.since) {
      const names = new Map();
      names.since = known.since;
      this.help.set(device, names);
      this.send(device, "help", [], (answer) => {
        for (const [name, text] of answer.informs) names.set(name, text || "");
        if (device === $("ask-device").value) this.complete();
      });
    }
    this.complete();
  }

  complete() {
    const names = [...(this.help.get($("ask-device").value) || new Map()).keys()].sort();
    $("ask-names").replaceChildren(...names.map((name) => new Option(name)));
    this.showHelp();
  }

  showHelp() {
    const names = this.help.get($("ask-device").value);
    setText($("ask-help"), (names && names.get(words(this.line.value)[0])) || "");
  }

  key(event) {
    if (event.key !== "ArrowUp" && event.key !== "ArrowDown") return;
    if (this.line.value && this.at === this.history.length) return; // the arrows are those of the completion
    const at = this.at + (event.key === "ArrowUp" ? -1 : 1);
    if (at < 0 || at > this.history.length) return;
    event.preventDefault();
    this.at = at;
    this.line.value = this.history[at] || "";
    this.showHelp();
  }

  submit() {
    const line = this.line.value.trim(), [name, ...rest] = words(line), device = $("ask-device").value;
    if (!name) return;
    this.history = [...this.history.filter((other) => other !== line), line].slice(-HISTORY);
    this.at = this.history.length;
    this.line.value = "";
    this.showHelp();
    const item = document.createElement("li"), asked = document.createElement("div"), answer = document.createElement("div");
    asked.className = "asked";
    asked.textContent = `${device}  ?${line}`;
    answer.textContent = "…";
    item.append(asked, answer);
    $("answers").prepend(item);
    while ($("answers").childElementCount > ANSWERS) $("answers").lastElementChild.remove();
    this.send(device, name.replace(/^\?/, ""), rest, (content) => {
      const informs = content.informs.map((inform) => `#${inform.join("  ")}\n`).join("");
      const more = content.left_out ? `(${content.left_out} more informs)\n` : "";
      answer.textContent = informs + more + (content.error || `!${content.reply.join("  ")}`);
      answer.className = content.reply && content.reply[0] === "ok" ? "ok" : "no";
    });
  }

  send(device, name, rest, done) {
    const id = ++this.number;
    if (this.link().send({ id, device, name, arguments: rest })) this.waiting.set(id, done);
    else done({ error: "not sent: the page has no connection to its server", informs: [] });
  }

  answered(content) {
    const done = this.waiting.get(content.answer);
    this.waiting.delete(content.answer);
    if (done) done(content);
  }

  lost() {
    for (const done of this.waiting.values()) done({ error: "the page has lost its server; the request may have been executed", informs: [] });
    this.waiting.clear();
    this.help.clear();
  }
}
