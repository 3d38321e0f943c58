// A call: one line to publish (WHIP), one to watch (WHEP), each kept alive by itself.
//
//   off → connecting → live ⇄ reconnecting → over (the server said no, for good)
//
// The page hears of it by the events "state" and "usage".
import { Api, backoff, sleep } from "./api.js";
import { Session, isFinal } from "./peer.js";
import { limit, preferCodecs, silence } from "./media.js";

const MISSING_TRIES = 3; // a server that restarts answers 404 for a moment
const SILENT_MS = 8000; // the mix always carries sound packets: none for so long means the line is dead
const SAMPLE_MS = 2000;
const FIRST_FRAME_MS = 5000;

/** Keeps one session open: opens it, waits until it is lost, opens it again. */
class Line {
  state = "off";
  session = null;
  #stopped = false;
  #wake = () => {};

  constructor(open, changed) { Object.assign(this, { open, changed }); }

  async run() {
    let missing = 0;
    this.#set("connecting");
    for (let tries = 0; !this.#stopped; tries++) {
      let pause = backoff(tries);
      try {
        this.session = await this.open(false);
        if (this.#stopped) return this.session.close();
        tries = missing = 0;
        this.#set("live");
        await this.#outlive();
        pause = backoff(0);
      } catch (error) {
        missing = error.status === 404 && this.state === "reconnecting" ? missing + 1 : MISSING_TRIES;
        if (isFinal(error) && missing >= MISSING_TRIES) return this.#stopped || this.#set("over", error);
        if (error.status !== 404) missing = 0;
        pause = Math.max(pause, 1000 * (error.retryAfter ?? 0));
      }
      if (this.#stopped) return;
      this.#set("reconnecting");
      await Promise.race([sleep(pause), new Promise((resolve) => { this.#wake = resolve; })]);
    }
  }

  /** Wait until the session is lost; one that replaced it meanwhile counts in its place. */
  async #outlive() {
    let session;
    do {
      session = this.session;
      await session.lost;
    } while (session !== this.session && !this.#stopped);
    session.close();
  }

  /** Open a second session and go over to it without a gap; a failure leaves the first as it is. */
  async swap() {
    if (this.state !== "live") return this.nudge();
    const next = await this.open(true);
    const old = this.session;
    this.session = next;
    old.close();
  }

  /** The network changed or the page woke up: look now, not at the end of a pause. */
  nudge() {
    this.#wake();
    if (this.state === "live" && this.session.pc.connectionState !== "connected") this.session.abandon("network");
  }

  stop() {
    this.#stopped = true;
    this.state = "off";
    this.session?.close();
    this.#wake();
  }

  #set(state, error) {
    this.state = state;
    this.changed(this, error);
  }
}

/** Bytes on the wire of a peer connection: the transport's own count where the browser has one. */
function traffic(report) {
  const all = [...report.values()];
  const transports = all.filter((entry) => entry.type === "transport" && entry.bytesSent !== undefined);
  const pairs = all.filter((entry) => entry.type === "candidate-pair" && entry.nominated && entry.state === "succeeded");
  const counted = transports.length ? transports : pairs;
  const sum = (name) => counted.reduce((total, entry) => total + (entry[name] ?? 0), 0);
  return { sent: sum("bytesSent"), received: sum("bytesReceived") };
}

function firstFrame(track) {
  const probe = Object.assign(document.createElement("video"), { muted: true, playsInline: true, srcObject: new MediaStream([track]) });
  probe.play().catch(() => {});
  const shown = new Promise((resolve) => probe.addEventListener("loadeddata", resolve));
  return Promise.race([shown, sleep(FIRST_FRAME_MS)]).finally(() => { probe.srcObject = null; });
}

export class Call extends EventTarget {
  /** The mix: set once as srcObject of the page's video; its tracks change under it. */
  mix = new MediaStream();
  rendition = "auto";
  tracks = { audio: null, camera: null, screen: null };
  #watch = new Line((seamless) => this.#openWatch(seamless), (line, error) => this.#changed(line, error));
  #publish = null;
  #bytes = new Map(); // per session, so that the total survives reconnections
  #history = []; // [{at, total}] of the last minute
  #progress = { bytes: 0, at: 0 };

  /** `getToken`: async, gives a token that is valid now. */
  constructor(room, getToken) {
    super();
    Object.assign(this, { room: encodeURIComponent(room), getToken });
  }

  start() {
    this.#watch.run();
    if (Object.values(this.tracks).some(Boolean)) this.#startPublish();
    this.timer = setInterval(() => this.#sample(), SAMPLE_MS);
  }

  stop() {
    clearInterval(this.timer);
    this.#watch.stop();
    this.#publish?.stop();
    for (const track of Object.values(this.tracks)) track?.stop();
  }

  nudge() {
    this.#watch.nudge();
    this.#publish?.nudge();
  }

  /** The server lost our sessions and is ready for new ones: don't wait until ICE notices. */
  restart() {
    for (const line of [this.#watch, this.#publish]) line?.session?.abandon("restarted");
    this.nudge();
  }

  get publishing() { return this.#publish?.state === "live"; }

  /** Watch another rendition. Rejects, and changes nothing, when the server refuses. */
  async setRendition(rendition) {
    const before = this.rendition;
    this.rendition = rendition;
    try { await this.#watch.swap(); } catch (error) {
      this.rendition = before;
      throw error;
    }
    await this.#limits();
  }

  /** Put `track` (or null) in place of "audio", "camera" or "screen"; the old one is stopped. */
  async setTrack(name, track) {
    const old = this.tracks[name];
    this.tracks[name] = track;
    if (!this.#publish) {
      if (track) this.#startPublish();
    } else {
      await Promise.all(this.#senders().map(([sender, current]) => sender.track !== current && sender.replaceTrack(current)));
      await this.#limits();
    }
    if (old !== track) old?.stop();
  }

  #startPublish() {
    this.#publish = new Line(() => this.#openPublish(), (line, error) => this.#changed(line, error));
    this.#publish.run();
  }

  #sources() { return [this.tracks.audio ?? silence(), this.tracks.screen ?? this.tracks.camera]; }

  #senders() {
    const senders = this.#publish?.session?.pc.getSenders() ?? [];
    return senders.map((sender, i) => [sender, this.#sources()[i]]);
  }

  async #limits() {
    await Promise.all(this.#senders().map(([sender]) => limit(sender, this.rendition, Boolean(this.tracks.screen))));
  }

  async #connection() {
    const api = new Api(await this.getToken());
    const iceServers = await api.get("/v1/ice-servers").catch(() => []);
    return [api, new RTCPeerConnection({ iceServers, bundlePolicy: "max-bundle" })];
  }

  async #openPublish() {
    const [api, pc] = await this.#connection();
    const session = new Session(pc, api, `/whip/${this.room}`);
    try {
      // Both sections are always there, so that a camera switched on later needs no new session.
      const sendEncodings = [{ maxBitrate: 1_200_000 }];
      const [audio, video] = this.#sources();
      pc.addTransceiver(audio, { direction: "sendonly" });
      preferCodecs(pc.addTransceiver(video ?? "video", { direction: "sendonly", sendEncodings }));
      await session.open();
      const current = this.#sources(); // may have changed while we connected
      await Promise.all(pc.getSenders().map((sender, i) => sender.track !== current[i] && sender.replaceTrack(current[i])));
      await Promise.all(pc.getSenders().map((sender) => limit(sender, this.rendition, Boolean(this.tracks.screen))));
      return session;
    } catch (error) {
      session.close();
      throw error;
    }
  }

  async #openWatch(seamless) {
    const [api, pc] = await this.#connection();
    const session = new Session(pc, api, `/whep/${this.room}?rendition=${this.rendition}`);
    try {
      const tracks = [];
      pc.addEventListener("track", ({ track }) => tracks.push(track));
      pc.addTransceiver("audio", { direction: "recvonly" });
      if (this.rendition !== "audio") pc.addTransceiver("video", { direction: "recvonly" });
      await session.open();
      const video = tracks.find((track) => track.kind === "video");
      if (seamless && video) await firstFrame(video);
      const old = this.mix.getTracks();
      for (const track of tracks) this.mix.addTrack(track);
      for (const track of old) this.mix.removeTrack(track);
      this.#progress = { bytes: 0, at: performance.now() };
      return session;
    } catch (error) {
      session.close();
      throw error;
    }
  }

  #changed(line, error) {
    const lines = [this.#watch, this.#publish].filter(Boolean).map(({ state }) => state);
    const state = ["over", "reconnecting", "connecting"].find((name) => lines.includes(name)) ?? "live";
    this.dispatchEvent(new CustomEvent("state", { detail: { state, error, publishing: line === this.#publish } }));
  }

  async #sample() {
    for (const session of [this.#watch.session, this.#publish?.session]) {
      if (!session || session.closed) continue;
      const bytes = traffic(await session.pc.getStats());
      this.#bytes.set(session, bytes);
      if (session === this.#watch.session) this.#checkProgress(session, bytes.received);
    }
    const total = [...this.#bytes.values()].reduce((sum, { sent, received }) => sum + sent + received, 0);
    const at = performance.now();
    this.#history.push({ at, total });
    while (at - this.#history[0].at > 20_000) this.#history.shift();
    const [first] = this.#history;
    const perMinute = at > first.at ? ((total - first.total) / (at - first.at)) * 60_000 : 0;
    this.dispatchEvent(new CustomEvent("usage", { detail: { total, perMinute } }));
  }

  #checkProgress(session, bytes) {
    const now = performance.now();
    if (bytes !== this.#progress.bytes) this.#progress = { bytes, at: now };
    else if (bytes && now - this.#progress.at > SILENT_MS) session.abandon("silent");
  }
}
