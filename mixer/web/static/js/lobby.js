// Before the call: who am I, what do I send, may I come in. The choice is kept for next time.
import { local, onLanguage, t } from "./i18n.js";
import { $, h, on } from "./dom.js";
import { canCapture, capture, devices, levelMeter } from "./media.js";

const METER_MS = 100;
const KINDS = { audio: "microphone", video: "camera" };

export class Lobby {
  tracks = { audio: null, video: null };
  #meter = null;
  #text = "starting";

  constructor() {
    $("name").value = local.get("mosaique.name") ?? "";
    for (const [kind, id] of Object.entries(KINDS)) on(id, () => this.choose(kind), "change");
    navigator.mediaDevices?.addEventListener?.("devicechange", () => this.list());
    onLanguage(() => this.list());
  }

  /** Ask for what was used last time; a refusal leaves the person free to listen. */
  async start() {
    this.timer = setInterval(() => { $("level").value = this.#meter?.read() ?? 0; }, METER_MS);
    if (!canCapture) this.#text = "insecure";
    else await Promise.all(Object.keys(KINDS).map((kind) => this.#acquire(kind, local.get(`mosaique.${kind}`) ?? "")));
    await this.list();
  }

  /** Hand the tracks over to the call; nothing is captured here any more. */
  take() {
    const { tracks } = this;
    this.tracks = { audio: null, video: null };
    this.stop();
    return tracks;
  }

  stop() {
    clearInterval(this.timer);
    for (const track of Object.values(this.tracks)) track?.stop();
    this.tracks = { audio: null, video: null };
    this.#show();
  }

  async choose(kind) {
    const id = $(KINDS[kind]).value;
    local.set(`mosaique.${kind}`, id);
    await this.#acquire(kind, id);
    await this.list();
  }

  /** Fill the device lists, in the language of the page. */
  async list() {
    for (const [kind, id] of Object.entries(KINDS)) {
      await fillDevices($(id), kind, this.tracks[kind]);
    }
    this.#show();
  }

  async #acquire(kind, id) {
    this.tracks[kind]?.stop();
    this.tracks[kind] = null;
    if (id !== "none") {
      try { this.tracks[kind] = await capture(kind, id); } catch (error) {
        // A device that was unplugged since: any other will do. A refusal is a refusal.
        if (id && error.name === "OverconstrainedError") return this.#acquire(kind, "");
        this.#text = error.name === "NotAllowedError" ? "capture_refused" : "capture_failed";
      }
    }
    this.#show();
  }

  #show() {
    const { audio, video } = this.tracks;
    const preview = $("self");
    if (video !== (preview.srcObject?.getTracks()[0] ?? null)) preview.srcObject = video && new MediaStream([video]);
    preview.hidden = !video;
    if ((video || $("camera").value === "none") && this.#text === "starting") this.#text = "camera_is_off";
    $("self-text").textContent = video ? "" : t(this.#text);
    if (audio !== this.#meter?.track) {
      this.#meter?.stop();
      this.#meter = audio && Object.assign(levelMeter(audio), { track: audio });
    }
  }
}

/** Options of a device select: what is there, and none. `track`: the one in use. */
export async function fillDevices(select, kind, track) {
  const found = await devices(kind);
  const used = track?.getSettings().deviceId;
  select.replaceChildren(
    ...found.map((device, i) => h("option", { value: device.deviceId }, device.label || `${t(KINDS[kind])} ${i + 1}`)),
    h("option", { value: "none" }, t("none_chosen")),
  );
  select.value = track ? used : "none";
  if (!select.value) select.selectedIndex = 0;
}
