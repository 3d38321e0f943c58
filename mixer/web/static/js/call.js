// A call: one line to watch (WHEP), one to publish (WHIP), each kept alive by itself.
//
//   connecting → live ⇄ reconnecting → over (the server said no, for good)
//
// The page hears of it by the events "state", "usage" and "resting".
import {Api, Problem, backoff, sleep} from "./api.js";
import {limit, preferCodecs, silence} from "./media.js";
import {Session, isFinal} from "./peer.js";

const MISSING_TRIES = 3; // a server that starts again answers 404 for a moment
const SILENT_MS = 8000; // the mix always carries sound packets: none for so long, and the line is dead
const STILL_MS = 5000; // even the lowest rendition has 8 pictures a second
const SAMPLE_MS = 2000;
const WINDOW_MS = 20_000; // of the data meter
const FIRST_FRAME_MS = 5000;
const iceTransportPolicy = /\brelay=1/.test(location) ? "relay" : "all"; // to try it

/** Keeps one session open: opens it, waits until it is lost, opens it again. */
class Line {
	state = "connecting";
	session = null;
	#stopped = false;
	#wake = () => {};

	constructor(open, changed) { Object.assign(this, {open, changed}); }

	async run() {
		let missing = 0;
		let wasLive = false;
		this.#set(this.state);
		for (let tries = 0; !this.#stopped; tries++) {
			let pause = backoff(tries);
			try {
				this.session = await this.open(false);
				if (this.#stopped) return this.session.close();
				this.#set("live");
				wasLive = true;
				tries = missing = 0;
				await this.#outlive();
			} catch (error) {
				missing = error.status === 404 ? missing + 1 : 0;
				const never = wasLive ? isFinal(error) && (!missing || missing >= MISSING_TRIES) : error instanceof Problem;
				if (never) return this.#stopped || this.#set("over", error);
				pause = Math.max(pause, 1000 * (error.retryAfter ?? 0));
			}
			if (this.#stopped) return;
			this.#set(wasLive ? "reconnecting" : "connecting");
			await Promise.race([sleep(pause), new Promise(resolve => { this.#wake = resolve; })]);
		}
	}

	/** Wait until the session is lost; one that took its place meanwhile counts instead. */
	async #outlive() {
		let session;
		do {
			session = this.session;
			await session.lost;
		} while (session !== this.session);
		session.close();
	}

	/** Go over to a second session without a gap; a failure leaves the first as it is. */
	async swap() {
		if (this.state !== "live") return this.#wake();
		const next = await this.open(true);
		const old = this.session;
		this.session = next;
		old.close();
	}

	/** The network changed or the page woke up: look now, not at the end of a pause. */
	nudge() {
		this.#wake();
		if (this.state === "live" && this.session.pc.connectionState !== "connected") this.session.abandon();
	}

	stop() {
		this.#stopped = true;
		this.session?.close();
		this.#wake();
	}

	#set(state, error) {
		this.state = state;
		if (!this.#stopped) this.changed(this, error);
	}
}

/** Bytes on the wire, by the transport's own count where the browser has one; pictures decoded, of all that came. */
async function traffic(pc) {
	const all = [...(await pc.getStats()).values()];
	const transports = all.filter(({type, bytesSent}) => type === "transport" && bytesSent !== undefined);
	const counted = transports.length ? transports : all.filter(({type, nominated}) => type === "candidate-pair" && nominated);
	const sum = name => counted.reduce((total, entry) => total + (entry[name] ?? 0), 0);
	const frames = all.reduce((total, {type, kind, framesDecoded = 0}) => total + (type === "inbound-rtp" && kind === "video" ? framesDecoded : 0), 0);
	return {sent: sum("bytesSent"), received: sum("bytesReceived"), frames};
}

async function firstFrame(track) {
	const probe = Object.assign(document.createElement("video"), {muted: true, playsInline: true, srcObject: new MediaStream([track])});
	probe.play().catch(() => {});
	await Promise.race([sleep(FIRST_FRAME_MS), new Promise(resolve => probe.addEventListener("loadeddata", resolve))]);
	probe.srcObject = null;
}

export class Call extends EventTarget {
	/** The mix: its tracks change, it stays. */
	mix = new MediaStream();
	rendition = "auto";
	recorded = true;
	tracks = {audio: null, camera: null, screen: null};
	#watch = new Line(seamless => this.#openWatch(seamless), (line, error) => this.#changed(line, error));
	#publish = null;
	#bytes = new Map(); // of every session there was, so that the total survives reconnections
	#history = []; // [{at, total}] of the last WINDOW_MS
	#heard = {bytes: 0, at: 0};
	#seen = {frames: 0, at: 0};
	/** No picture comes, though one was asked for: the line is too weak. */
	resting = false;

	/** `getToken`: async, gives a token that is valid now. */
	constructor(room, getToken) {
		super();
		Object.assign(this, {room: encodeURIComponent(room), getToken});
	}

	start() {
		this.#watch.run();
		if (Object.values(this.tracks).some(Boolean)) this.#startPublish();
		this.timer = setInterval(() => this.#sample(), SAMPLE_MS);
	}

	stop() {
		clearInterval(this.timer);
		for (const line of this.#lines) line.stop();
		for (const track of Object.values(this.tracks)) track?.stop();
	}

	nudge() { for (const line of this.#lines) line.nudge(); }

	/** The server lost our sessions and is ready for new ones: don't wait until ICE notices. */
	restart() {
		for (const line of this.#lines) line.session?.abandon();
		this.nudge();
	}

	get publishing() { return this.#publish?.state === "live"; }

	get #lines() { return this.#publish ? [this.#watch, this.#publish] : [this.#watch]; }

	/** Watch another rendition. Rejects, and changes nothing, when that fails. */
	async setRendition(rendition) {
		const before = this.rendition;
		this.rendition = rendition;
		try { await this.#watch.swap(); } catch (error) {
			this.rendition = before;
			throw error;
		}
		await this.#send(this.#publish?.session?.pc);
	}

	/** Put `track` (or null) in place of "audio", "camera" or "screen"; the old one is stopped. */
	async setTrack(name, track) {
		const old = this.tracks[name];
		this.tracks[name] = track;
		if (old !== track) old?.stop();
		if (this.#publish && this.#publish.state !== "over") await this.#send(this.#publish.session?.pc);
		else if (track) this.#startPublish();
	}

	#startPublish() {
		this.#publish = new Line(() => this.#openPublish(), (line, error) => this.#changed(line, error));
		this.#publish.run();
	}

	/** In the order of the sections: sound, camera, screen. */
	get #sources() { return [this.tracks.audio ?? silence(), this.tracks.camera, this.tracks.screen]; }

	/** Make the connection's senders carry the tracks of now, within the limits of now. */
	async #send(pc) {
		const sources = this.#sources;
		await Promise.all((pc?.getSenders() ?? []).map(async (sender, i) => {
			if (sender.track !== sources[i]) await sender.replaceTrack(sources[i]);
			await limit(sender, this.rendition, i === 2);
		}));
	}

	/** An open session on `path`; closed again when anything fails. */
	async #open(path, prepare, finish) {
		const api = new Api(await this.getToken());
		const iceServers = await api.get("/v1/ice-servers").catch(() => []);
		const session = new Session(new RTCPeerConnection({iceServers, iceTransportPolicy, bundlePolicy: "max-bundle"}), api, path);
		try {
			prepare(session.pc);
			await session.open();
			await finish(session.pc);
		} catch (error) {
			session.close();
			throw error;
		}
		return session;
	}

	#openPublish() {
		return this.#open(`/whip/${this.room}?recorded=${this.recorded}`, pc => {
			// All sections are always there, so that a camera switched on later needs no new session.
			const [audio, ...pictures] = this.#sources;
			pc.addTransceiver(audio, {direction: "sendonly"});
			for (const track of pictures) preferCodecs(pc.addTransceiver(track ?? "video", {direction: "sendonly", sendEncodings: [{maxBitrate: 1_200_000}]}));
		}, pc => this.#send(pc));
	}

	#openWatch(seamless) {
		const tracks = [];
		return this.#open(`/whep/${this.room}?rendition=${this.rendition}`, pc => {
			pc.addEventListener("track", ({track}) => tracks.push(track));
			pc.addTransceiver("audio", {direction: "recvonly"});
			if (this.rendition !== "audio") pc.addTransceiver("video", {direction: "recvonly"});
		}, async () => {
			const video = tracks.find(({kind}) => kind === "video");
			if (seamless && video) await firstFrame(video);
			const old = this.mix.getTracks();
			// In this order: Firefox goes on showing a track that it chose before the new one came.
			for (const track of old) this.mix.removeTrack(track);
			for (const track of tracks) this.mix.addTrack(track);
			this.#heard = {bytes: 0, at: 0};
			this.#seen = {frames: 0, at: performance.now()};
		});
	}

	#changed(line, error) {
		// Who may not publish may still watch.
		const states = this.#lines.filter(({state}) => line === this.#watch || state !== "over").map(({state}) => state);
		const state = ["over", "reconnecting", "connecting"].find(name => states.includes(name)) ?? "live";
		this.dispatchEvent(new CustomEvent("state", {detail: {state, error}}));
	}

	async #sample() {
		for (const {session} of this.#lines) {
			if (!session || session.closed) continue;
			const counts = await traffic(session.pc);
			this.#bytes.set(session, counts);
			if (session === this.#watch.session) this.#listen(session, counts);
		}
		const at = performance.now();
		const total = [...this.#bytes.values()].reduce((sum, {sent, received}) => sum + sent + received, 0);
		this.#history.push({at, total});
		while (at - this.#history[0].at > WINDOW_MS) this.#history.shift();
		const [first] = this.#history;
		const perMinute = ((total - first.total) * 60_000) / (at - first.at || 1);
		this.dispatchEvent(new CustomEvent("usage", {detail: {total, perMinute}}));
	}

	#listen(session, {received, frames}) {
		const now = performance.now();
		if (received !== this.#heard.bytes) this.#heard = {bytes: received, at: now};
		else if (received && now - this.#heard.at > SILENT_MS) session.abandon();
		if (frames !== this.#seen.frames) this.#seen = {frames, at: now};
		// The server leaves the picture out for a line that cannot carry it.
		const resting = this.rendition === "auto" && this.#watch.state === "live" && now - this.#seen.at > STILL_MS;
		if (resting !== this.resting) this.dispatchEvent(new CustomEvent("resting", {detail: this.resting = resting}));
	}
}
