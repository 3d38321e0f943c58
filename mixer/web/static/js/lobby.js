// Before the call: what do I send. The choice is kept for next time.
import {local, onLanguage, t} from "./i18n.js";
import {$, h, on} from "./dom.js";
import {canCapture, capture, devices, levelMeter} from "./media.js";

const METER_MS = 100;
const KINDS = {audio: "microphone", video: "camera"};

/** Options of the select for `kind`: what there is, and none. `track`: the one in use. */
export async function fillDevices(kind, track) {
	const select = $(KINDS[kind]);
	const options = (await devices(kind)).map(({deviceId, label}, i) => h("option", {value: deviceId}, label || `${t(KINDS[kind])} ${i + 1}`));
	select.replaceChildren(...options, h("option", {value: "none"}, t(`none_${KINDS[kind]}`)));
	select.value = track?.getSettings().deviceId ?? "none";
}

export class Lobby {
	tracks = {audio: null, video: null};
	#meter = null;
	#text = "starting";

	constructor() {
		$("name").value = local.get("mosaique.name") ?? "";
		for (const [kind, id] of Object.entries(KINDS)) on(id, () => this.timer && this.#choose(kind), "change");
		navigator.mediaDevices?.addEventListener("devicechange", () => this.timer && this.#list());
		onLanguage(() => this.timer && this.#list());
	}

	/** Ask for what was used last time; who refuses may still listen. */
	async start() {
		this.timer = setInterval(() => { $("level").value = this.#meter?.read() ?? 0; }, METER_MS);
		if (canCapture) await Promise.all(Object.keys(KINDS).map(kind => this.#acquire(kind, local.get(`mosaique.${kind}`) ?? "")));
		else this.#text = "insecure";
		await this.#list();
	}

	/** Hand the tracks over to the call. */
	take() {
		const {tracks} = this;
		this.timer = clearInterval(this.timer);
		this.tracks = {audio: null, video: null};
		this.#show();
		return tracks;
	}

	async #choose(kind) {
		local.set(`mosaique.${kind}`, $(KINDS[kind]).value);
		await this.#acquire(kind, $(KINDS[kind]).value);
		await this.#list();
	}

	async #list() {
		for (const kind of Object.keys(KINDS)) await fillDevices(kind, this.tracks[kind]);
		this.#show();
	}

	async #acquire(kind, id) {
		this.tracks[kind]?.stop();
		this.tracks[kind] = null;
		if (kind === "video") this.#text = "is_camera-off";
		if (id === "none") return;
		try { this.tracks[kind] = await capture(kind, id); } catch (error) {
			// A device that was unplugged since: any other will do. A refusal is a refusal.
			if (id && error.name !== "NotAllowedError") return this.#acquire(kind, "");
			this.#text = error.name === "NotAllowedError" ? "capture_refused" : "capture_failed";
		}
	}

	#show() {
		const {audio, video} = this.tracks;
		const preview = $("self");
		if (video !== (preview.srcObject?.getTracks()[0] ?? null)) preview.srcObject = video && new MediaStream([video]);
		preview.hidden = !video;
		$("self-text").textContent = video ? "" : t(this.#text);
		if (audio === (this.#meter?.track ?? null)) return;
		this.#meter?.stop();
		this.#meter = audio && levelMeter(audio);
	}
}
