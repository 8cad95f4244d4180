// The WebSocket of the page: it reconnects by itself, and says when what is shown is stale.

// The server sends something every few seconds; after SILENCE (ms) without anything the link is dead.
const FIRST = 500, MAXIMUM = 15000, SILENCE = 10000;

export class Link {
  constructor({ onFrame, onState }) {
    this.onFrame = onFrame;
    this.onState = onState;
    this.failures = 0;
    this.socket = null;
    this.timer = 0;
    this.patience = 0;
    this.retryAt = 0;
    // A page that was hidden, or a computer that slept, need not wait.
    addEventListener("online", () => this.retryNow());
    document.addEventListener("visibilitychange", () => { if (!document.hidden) this.retryNow(); });
    // From the cache of the browser a page comes back with a socket that is dead.
    addEventListener("pagehide", () => this.socket && this.socket.close());
    this.connect();
  }

  connect() {
    clearTimeout(this.timer);
    this.retryAt = 0;
    const url = new URL("ws", document.baseURI);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(url);
    this.socket = socket;
    let first = true;
    const lost = () => {
      if (socket !== this.socket) return;
      clearTimeout(this.patience);
      this.socket = null;
      const most = Math.min(MAXIMUM, FIRST * 2 ** this.failures++);
      const wait = most * (0.5 + Math.random() / 2);
      this.retryAt = Date.now() + wait;
      this.timer = setTimeout(() => this.connect(), wait);
      this.onState(false);
    };
    // A dead link may never say that it has closed.
    const heard = () => { clearTimeout(this.patience); this.patience = setTimeout(() => { lost(); socket.close(); }, SILENCE); };
    heard();
    socket.onmessage = (event) => {
      if (socket !== this.socket) return;
      heard();
      this.failures = 0;
      this.onFrame(JSON.parse(event.data), first);
      if (first) { first = false; this.onState(true); }
    };
    socket.onclose = lost;
  }

  retryNow() { if (this.socket === null) this.connect(); }

  send(content) {
    if (this.socket === null || this.socket.readyState !== WebSocket.OPEN) return false;
    this.socket.send(JSON.stringify(content));
    return true;
  }
}
