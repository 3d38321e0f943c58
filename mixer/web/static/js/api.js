// The HTTP surface: bearer tokens, problem+json (RFC 9457), server-sent events over fetch.
import {tab} from "./i18n.js";

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
	async send(method, path, {body, headers = {}, ...options} = {}) {
		const json = body !== undefined && typeof body !== "string";
		const response = await fetch(path, {
			method,
			body: json ? JSON.stringify(body) : body,
			headers: {
				...(this.token && {Authorization: `Bearer ${this.token}`}),
				...(json && {"Content-Type": "application/json"}),
				...headers,
			},
			...options,
		});
		if (!response.ok) throw await Problem.from(response);
		return response;
	}

	/** Send and return the JSON of the answer. */
	async call(method, path, body) {
		const text = await (await this.send(method, path, {body})).text();
		return text && JSON.parse(text);
	}

	get(path) { return this.call("GET", path); }
}

/** The claims of a JWT, unverified; {} for the admin's opaque token. */
export function claims(token) {
	try {
		const part = token.split(".")[1].replace(/-/g, "+").replace(/_/g, "/");
		return JSON.parse(new TextDecoder().decode(Uint8Array.from(atob(part), c => c.charCodeAt(0))));
	} catch { return {}; }
}

/** The token of `#token=…`, taken off the address, which may be copied; else the one this tab kept under `key`. */
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

/** Fed an event stream as it comes, gives the events (ours are JSON on one line). */
export function eventParser() {
	let rest = "";
	return text => {
		const lines = (rest + text).split("\n");
		rest = lines.pop();
		return lines.filter(line => line.startsWith("data:")).map(line => JSON.parse(line.slice(5)));
	};
}

export const sleep = (ms, signal) => new Promise(resolve => {
	const timer = setTimeout(resolve, ms);
	signal?.addEventListener("abort", () => { clearTimeout(timer); resolve(); }, {once: true});
});

/** Delay in ms before try `n`: 0.5 s to 8 s, spread so that a room does not come back in one instant. */
export const backoff = n => Math.min(8000, 500 * 2 ** n) * (0.75 + Math.random() / 2);

/** Follow the events of `room` until `signal` aborts. `onOpen` runs at each connection: what was missed is read again.
 * EventSource can't send Authorization. */
export async function follow(room, getToken, {onOpen, onEvent, signal}) {
	for (let tries = 0; !signal.aborted; tries++) {
		try {
			const api = new Api(await getToken());
			const response = await api.send("GET", `/v1/events?room=${encodeURIComponent(room)}`, {headers: {Accept: "text/event-stream"}, signal});
			tries = 0;
			await onOpen();
			const reader = response.body.getReader();
			const text = new TextDecoder();
			const parse = eventParser();
			for (let part = await reader.read(); !part.done; part = await reader.read()) {
				parse(text.decode(part.value, {stream: true})).forEach(onEvent);
			}
		} catch {/* the call itself says what is wrong */}
		await sleep(backoff(tries), signal);
	}
}
