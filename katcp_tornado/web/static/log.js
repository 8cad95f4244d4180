// The log of the devices and of their connections, the newest at the end.

import { $ } from "./table.js";

const LINES = 500;

function part(tag, name, text) {
  const node = document.createElement(tag);
  node.className = name;
  node.textContent = text;
  return node;
}

export function addLog(lines, first) {
  const list = $("log");
  if (first) list.replaceChildren();
  if (!lines || !lines.length) return;
  const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 30;
  const added = document.createDocumentFragment();
  for (const [when, device, level, source, text] of lines.slice(-LINES)) {
    const item = document.createElement("li");
    if (["warn", "error", "fatal"].includes(level)) item.className = level;
    item.append(part("time", "", new Date(when * 1000).toLocaleTimeString("en-GB")), part("span", "level", level),
      part("span", "from", `${device} ${source}`), part("span", "text", text));
    added.append(item);
  }
  list.append(added);
  while (list.childElementCount > LINES) list.firstElementChild.remove();
  if (atEnd) list.scrollTop = list.scrollHeight;
}
