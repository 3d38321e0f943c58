// The HTTP surface: bearer tokens, problem+json (RFC 9457), server-sent events over fetch.
import { tab } from "./i18n.js";

/** The contract's layouts. */
export const PRESETS = ["grid", "speaker", "spotlight", "side-by-side", "pip", "presentation", "custom"];

/** An error answer of the server; no answer at all is fetch's own TypeError. */
export class Problem extends Error {
  constructor(status, body, retryAfter) {
    super(body.detail || body.title || `HTTP ${status}`);
    this.status = status;
    this.errors = body.errors ?? [];
    this.retryAfter = Number(retryAfter) || 0;
  }

  static async from(response) {
    const body = await response.json().catch(() => ({}));
    return new Problem(response.status, body, response.headers.get("Retry-After"));
  }
}

export class Api {
  constructor(token) { this.token = token; }

  /** Send and return the Response; throws Problem unless it is 2xx. */
  async send(method, path, { body, headers = {}, ...options } = {}) {
    const json = body !== undefined && typeof body !== "string";
    const response = await fetch(path, {
      method,
      body: json ? JSON.stringify(body) : body,
      headers: {
        ...(this.token && { Authorization: `Bearer ${this.token}` }),
        ...(json && { "Content-Type": "application/json" }),
        ...headers,
      },
      ...options,
    });
    if (!response.ok) throw await Problem.from(response);
    return response;
  }

  /** Send and return the JSON of the answer. */
  async call(method, path, body) {
    const text = await (await this.send(method, path, { body })).text();
    return text && JSON.parse(text);
  }

  get(path) { return this.call("GET", path); }
}

/** The claims of a JWT; {} for an opaque token (the admin's). The server verifies, we only read. */
export function claims(token) {
  try {
    const part = token.split(".")[1].replace(/-/g, "+").replace(/_/g, "/");
    return JSON.parse(new TextDecoder().decode(Uint8Array.from(atob(part), (c) => c.charCodeAt(0))));
  } catch { return {}; }
}

/** The token of `…#token=…`, taken off the address so that copying it gives nothing away; else what this tab kept under `key`. */
export function takeToken(key) {
  const fragment = new URLSearchParams(location.hash.slice(1));
  const token = fragment.get("token");
  if (token) {
    fragment.delete("token");
    const rest = fragment.toString();
    history.replaceState(null, "", location.pathname + location.search + (rest && `#${rest}`));
    tab.set(key, token);
  }
  return token ?? tab.get(key);
}

/** Split an event stream (WHATWG HTML section 9.2) into events; feed it text as it comes. */
export class EventParser {
  #rest = "";

  push(text) {
    const lines = (this.#rest + text).replace(/\r\n?/g, "\n").split("\n\n");
    this.#rest = lines.pop();
    return lines.map((block) => {
      const event = { id: "", data: "" };
      for (const line of block.split("\n")) {
        const [, field, value] = /^(\w+): ?(.*)$/.exec(line) ?? [];
        if (field === "data") event.data += (event.data && "\n") + value;
        else if (field === "id") event.id = value;
      }
      return event;
    }).filter((event) => event.data);
  }
}

export const sleep = (ms, signal) => new Promise((resolve) => {
  const timer = setTimeout(resolve, ms);
  signal?.addEventListener("abort", () => { clearTimeout(timer); resolve(); }, { once: true });
});

/** Delay before try `n` (0, 1, …): doubling from 0.5 s to 8 s, spread so that a room does not come back in one instant. */
export const backoff = (n) => Math.min(8000, 500 * 2 ** n) * (0.75 + Math.random() / 2);

/**
 * Follow the events of `room` until `signal` aborts, reconnecting by itself. `onOpen` runs at each (re)connection,
 * before events: what was missed is then read again. EventSource is not used: it cannot send Authorization.
 */
export async function follow(room, getToken, { onOpen, onEvent, signal }) {
  for (let tries = 0; !signal.aborted; tries++) {
    try {
      const api = new Api(await getToken());
      const response = await api.send("GET", `/v1/events?room=${encodeURIComponent(room)}`, { headers: { Accept: "text/event-stream" }, signal });
      tries = 0;
      onOpen();
      const reader = response.body.getReader();
      const text = new TextDecoder();
      const parser = new EventParser();
      for (let part = await reader.read(); !part.done; part = await reader.read()) {
        for (const event of parser.push(text.decode(part.value, { stream: true }))) onEvent(JSON.parse(event.data));
      }
    } catch { /* the call itself says what is wrong */ }
    await sleep(backoff(tries), signal);
  }
}
