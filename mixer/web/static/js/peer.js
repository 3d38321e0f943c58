// One WHIP (RFC 9725) or WHEP session: offer out, answer in, late candidates, DELETE at the end.
import {Problem, sleep} from "./api.js";

const GATHER_MS = 500; // direct candidates are there by then; relays follow
const CONNECT_MS = 15_000;
const CLOSE_MS = 2000;
const DISCONNECTED_MS = 4000; // a short radio gap heals by itself

/** RFC 8840 fragment for `candidates` of the local description `sdp`. */
export function fragment(sdp, candidates) {
	const lines = ["ice-ufrag", "ice-pwd"].map(name => new RegExp(`^a=${name}:\\S+`, "m").exec(sdp)[0]);
	let media;
	for (const {candidate, sdpMid} of candidates) {
		if (sdpMid !== media) lines.push("m=audio 9 UDP/TLS/RTP/SAVPF 0", `a=mid:${sdpMid}`);
		media = sdpMid;
		lines.push(candidate ? `a=${candidate}` : "a=end-of-candidates");
	}
	return `${lines.join("\r\n")}\r\n`;
}

/**
 * Offer, with lost packets of sound repeated on request (RFC 4585): browsers can, both ways, but offer it for
 * pictures only, and no API asks for it. One that won't have its offer changed makes its own.
 */
async function offer(pc) {
	const {sdp} = await pc.createOffer();
	const asked = sdp.replace(/^a=rtpmap:(\d+) opus\/48000\/2\r\n/gim, "$&a=rtcp-fb:$1 nack\r\n");
	await pc.setLocalDescription({type: "offer", sdp: asked}).catch(() => pc.setLocalDescription());
}

export class Session {
	#late = [];
	#lose;
	/** Resolves once it is of no use. */
	lost = new Promise(resolve => { this.#lose = resolve; });

	constructor(pc, api, path) { Object.assign(this, {pc, api, path, url: null, etag: "*", closed: false}); }

	/** Negotiate and wait until media can flow. Throws Problem (refused) or Error (no connection). */
	async open() {
		const {pc} = this;
		let offered = false;
		pc.addEventListener("icecandidate", ({candidate}) => {
			if (!offered || !candidate) return;
			this.#late.push(candidate);
			this.#trickle();
		});
		await offer(pc);
		await Promise.race([sleep(GATHER_MS), new Promise(resolve => pc.addEventListener("icegatheringstatechange", () => {
			if (pc.iceGatheringState === "complete") resolve();
		}))]);
		offered = true;
		const response = await this.api.send("POST", this.path, {body: pc.localDescription.sdp, headers: {"Content-Type": "application/sdp"}});
		this.url = new URL(response.headers.get("Location"), response.url).href;
		this.etag = response.headers.get("ETag") ?? "*";
		if (this.closed) {
			await this.#delete();
			throw new Error("closed");
		}
		await pc.setRemoteDescription({type: "answer", sdp: await response.text()});
		this.#trickle();
		await this.#connected();
	}

	async #trickle() {
		if (!this.url || !this.#late.length) return;
		const body = fragment(this.pc.localDescription.sdp, this.#late.splice(0));
		const headers = {"Content-Type": "application/trickle-ice-sdpfrag", "If-Match": this.etag};
		await this.api.send("PATCH", this.url, {body, headers}).catch(() => {}); // the offer's may do
	}

	/** Resolves when connected; later a break ends `lost`. */
	#connected() {
		const {pc} = this;
		return new Promise((resolve, reject) => {
			let timer = setTimeout(() => reject(new Error("ICE timeout")), CONNECT_MS);
			const check = () => {
				clearTimeout(timer);
				if (pc.connectionState === "connected") resolve();
				else if (pc.connectionState === "disconnected") timer = setTimeout(this.#lose, DISCONNECTED_MS);
				else if (pc.connectionState === "failed" || this.closed) {
					reject(new Error("ICE failed"));
					this.#lose();
				} else timer = setTimeout(() => reject(new Error("ICE timeout")), CONNECT_MS);
			};
			pc.addEventListener("connectionstatechange", check);
			this.lost.then(check);
		});
	}

	/** Nothing arrives any more. */
	abandon() { this.#lose(); }

	/** End it, here and on the server. Safe to call twice, and while the page goes away. */
	close() {
		if (this.closed) return;
		this.closed = true;
		this.#lose();
		// The server first: it takes the end of DTLS for the end of the session, and DELETE would find none.
		Promise.race([sleep(CLOSE_MS), this.#delete()]).finally(() => this.pc.close());
	}

	async #delete() { if (this.url) await this.api.send("DELETE", this.url, {keepalive: true}).catch(() => {}); }
}

/** Trying again can't help: not allowed, gone, or an offer that is not taken. */
export const isFinal = error => error instanceof Problem && [400, 401, 403, 404, 406, 410, 413, 415].includes(error.status);
