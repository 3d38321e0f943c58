// One WHIP (RFC 9725) or WHEP session: offer out, answer in, candidates that come late, DELETE at the end.
import { Problem, sleep } from "./api.js";

const GATHER_MS = 500; // host and reflexive candidates are there by then; slow relays follow by PATCH
const CONNECT_MS = 15000;
const DISCONNECTED_MS = 4000; // "disconnected" heals by itself on a short radio gap

/** RFC 8840 fragment for `candidates` of the local description `sdp`. */
export function fragment(sdp, candidates) {
  const lines = ["ice-ufrag", "ice-pwd"].map((name) => new RegExp(`^a=${name}:.*`, "m").exec(sdp)[0].trim());
  let media;
  for (const candidate of candidates) {
    if (candidate.sdpMid !== media) {
      media = candidate.sdpMid;
      lines.push("m=audio 9 UDP/TLS/RTP/SAVPF 0", `a=mid:${media}`);
    }
    lines.push(candidate.candidate ? `a=${candidate.candidate}` : "a=end-of-candidates");
  }
  return `${lines.join("\r\n")}\r\n`;
}

const gathered = (pc) => Promise.race([
  sleep(GATHER_MS),
  new Promise((resolve) => pc.addEventListener("icegatheringstatechange", () => pc.iceGatheringState === "complete" && resolve())),
]);

export class Session {
  #late = [];
  #lose;
  /** Resolves with the reason once the session is of no more use. */
  lost = new Promise((resolve) => { this.#lose = resolve; });

  constructor(pc, api, path) {
    Object.assign(this, { pc, api, path, url: null, etag: "*", closed: false });
  }

  /** Negotiate and wait until media can flow. Throws Problem (the server refused) or Error (no connection). */
  async open() {
    const { pc } = this;
    let offered = false;
    pc.addEventListener("icecandidate", ({ candidate }) => {
      if (!offered || !candidate) return;
      this.#late.push(candidate);
      this.#trickle();
    });
    await pc.setLocalDescription(await pc.createOffer());
    if (pc.iceGatheringState !== "complete") await gathered(pc);
    offered = true;
    const response = await this.api.send("POST", this.path, {
      body: pc.localDescription.sdp, headers: { "Content-Type": "application/sdp" },
    });
    this.url = new URL(response.headers.get("Location"), response.url).href;
    this.etag = response.headers.get("ETag") ?? "*";
    if (this.closed) return this.#delete();
    await pc.setRemoteDescription({ type: "answer", sdp: await response.text() });
    this.#trickle();
    await this.#connected();
    this.#watch();
  }

  async #trickle() {
    if (!this.url || !this.#late.length) return;
    const body = fragment(this.pc.localDescription.sdp, this.#late.splice(0));
    const headers = { "Content-Type": "application/trickle-ice-sdpfrag", "If-Match": this.etag };
    await this.api.send("PATCH", this.url, { body, headers }).catch(() => {}); // those in the offer may do
  }

  #connected() {
    const { pc } = this;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error("timeout")), CONNECT_MS);
      const check = () => {
        if (pc.connectionState === "connected") resolve();
        else if (pc.connectionState === "failed" || this.closed) reject(new Error(pc.connectionState));
        else return;
        clearTimeout(timer);
      };
      pc.addEventListener("connectionstatechange", check);
      this.lost.then(check);
      check();
    });
  }

  #watch() {
    const { pc } = this;
    let timer;
    const check = () => {
      clearTimeout(timer);
      if (pc.connectionState === "failed") this.#lose("failed");
      else if (pc.connectionState === "disconnected") timer = setTimeout(() => this.#lose("disconnected"), DISCONNECTED_MS);
    };
    pc.addEventListener("connectionstatechange", check);
    check();
  }

  /** Give up on this session (nothing arrives any more). */
  abandon(reason) { this.#lose(reason); }

  /** End it, here and on the server. Safe to call twice, and while the page goes away. */
  close() {
    if (this.closed) return;
    this.closed = true;
    this.pc.close();
    this.#lose("closed");
    this.#delete();
  }

  #delete() {
    if (this.url) this.api.send("DELETE", this.url, { keepalive: true }).catch(() => {});
  }
}

/** True when trying again can't help: not allowed, gone, or a browser whose offer is refused. */
export const isFinal = (error) => error instanceof Problem && [400, 403, 404, 406, 410, 413, 415].includes(error.status);
