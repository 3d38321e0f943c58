// The room's page: from the lobby into the call and out of it. What the server does is in call.js.
import {label, local, megabytes, onLanguage, ready, t, tab} from "./i18n.js";
import {$, explain, icon, on, say} from "./dom.js";
import {Api, PRESETS, claims, follow, takeToken} from "./api.js";
import {Call} from "./call.js";
import {Lobby, fillDevices} from "./lobby.js";
import {People} from "./people.js";
import {canCapture, canShare, capture, captureScreen} from "./media.js";

const RANK = ["viewer", "participant", "moderator", "admin"];
const ECHO_MS = 3000; // our own mute comes back as an event within this time

const room = decodeURIComponent(location.pathname.split("/")[2] ?? "");
const path = `/v1/rooms/${encodeURIComponent(room)}`;
const key = `mosaique.token.${room}`;

let token = takeToken(key);
let isOpen = false; // the server let us in without an invitation, and would again
let call = null;
let following = null;
let wakeLock = null;
let recording = null; // {id, state} as the server tells it
let state = ""; // of the call, as it told last
let joined = false;
let told = -ECHO_MS;

const api = () => new Api(token);
const me = () => claims(token).sub;
const may = role => RANK.indexOf(claims(token).role) >= RANK.indexOf(role);
const myName = () => $("name").value.trim();
const person = id => `${path}/participants/${encodeURIComponent(id)}`;
const lobby = new Lobby();
const people = new People($("people-list"), {
	me, moderates: () => may("moderator"),
	change: (id, patch) => api().call("PATCH", person(id), patch),
	remove: id => api().call("DELETE", person(id)),
});

// --- coming in

const expired = () => claims(token).exp * 1000 < Date.now() + 10_000;

function keep(fresh) {
	token = fresh;
	tab.set(key, fresh);
}

/** A token that is valid now: the one we have, or one for whoever asks (open rooms). */
async function getToken() {
	if (token && !expired()) return token;
	const had = token;
	keep((await new Api().call("POST", `/join/${encodeURIComponent(room)}`, {name: myName()}).catch(error => {
		if (error.status === 403) error.message = t(had ? "token_expired" : "need_invitation");
		throw error;
	})).token);
	isOpen = true;
	return token;
}

/** What was pasted: a link, a token, or the admin token, which makes a moderator's. */
async function useInvitation(text) {
	const pasted = text.split("#token=").at(-1).trim();
	if (claims(pasted).role) return keep(pasted);
	const admin = new Api(pasted);
	const make = () => admin.call("POST", `${path}/tokens`, {role: "moderator", name: myName()});
	keep((await make().catch(async error => {
		if (error.status !== 404) throw error;
		await admin.call("POST", "/v1/rooms", {name: room});
		return make();
	})).token);
}

async function join() {
	$("problem").textContent = myName() ? "" : t("name_missing");
	$("name").setAttribute("aria-invalid", String(!myName()));
	if (!myName()) return $("name").focus();
	local.set("mosaique.name", myName());
	$("join").disabled = true;
	try {
		if ($("invite").value) await useInvitation($("invite").value);
		if (isOpen && claims(token).name !== myName()) token = null;
		await getToken();
		enter();
	} catch (error) {
		refuse(error);
	} finally { $("join").disabled = false; }
}

function refuse(error) {
	$("problem").textContent = error.status === 401 ? t("token_expired") : explain(error);
	if (![401, 403].includes(error.status)) return;
	keep(null);
	$("invitation").hidden = false;
	$("invite").value = "";
	$("invite").focus();
}

function enter() {
	const {audio, video} = lobby.take();
	call = new Call(room, getToken);
	call.rendition = $("rendition").value;
	call.recorded = !$("unrecorded").checked;
	if (may("participant")) Object.assign(call.tracks, {audio, camera: video});
	else for (const track of [audio, video]) track?.stop();
	$("mix").srcObject = call.mix;
	call.addEventListener("state", ({detail}) => changed(detail));
	call.addEventListener("resting", render);
	call.addEventListener("usage", ({detail: {total, perMinute}}) => {
		$("usage").textContent = `${megabytes(perMinute)}/min`;
		$("usage-long").textContent = t("usage", {rate: megabytes(perMinute), total: megabytes(total)});
	});
	show("call");
	hear();
	call.start();
	following = new AbortController();
	follow(room, getToken, {onOpen: resync, onEvent: heard, signal: following.signal});
	keepAwake();
	showPeople(innerWidth >= 960);
	render();
	$("mic").focus();
}

// --- the call

function changed({state: now, error}) {
	if (!call) return;
	if (error && now !== "over") say(explain(error), true); // may watch, may not publish
	if (now === "over") return joined ? leave(error.status === 404 ? "ended" : "refused", explain(error)) : backToLobby(error);
	if (now === "live") {
		if (state === "reconnecting") say(t("back"));
		if (!joined) introduce();
		joined = true;
	}
	state = now;
	render();
}

function backToLobby(error) {
	stop();
	show("lobby");
	refuse(error);
}

/** Once inside: the name as typed, our switches as they are. */
function introduce() {
	if (!may("participant")) return;
	const switches = call.publishing && {muted: !micOn(), video_muted: !camOn()};
	tell({...switches, ...(claims(token).name !== myName() && {name: myName()})});
}

function hear() {
	$("mix").play().then(() => { $("unblock").hidden = true; }, ({name}) => { $("unblock").hidden = name !== "NotAllowedError"; });
}

async function resync() {
	const [now, list] = await Promise.all([api().get(path), api().get(`${path}/participants`)]);
	people.replace(list);
	setRecording(now.recording);
	$("preset").value = now.layout.preset;
}

const handlers = {
	"participant.joined": data => { people.update(data); if (data.id !== me()) say(t("joined_who", data)); },
	"participant.updated": data => {
		const before = people.get(data.id);
		people.update(data);
		if (data.id !== me()) { if (data.hand && !before?.hand) say(t("hand_who", data)); }
		else if (data.muted && micOn() && performance.now() - told > ECHO_MS) {
			call.tracks.audio.enabled = false;
			say(t("muted_by_other"), true);
		}
	},
	"participant.left": data => {
		people.delete(data.id);
		if (data.id !== me()) say(t("left_who", data));
		else if (data.reason?.startsWith("removed")) leave("removed");
	},
	"speaker.changed": ({speaking}) => people.speaking(speaking),
	"layout.changed": ({preset}) => { $("preset").value = preset; },
	"room.degraded": ({step}) => { if (step === 1) say(t("strained")); },
	"room.restored": ({step}) => { if (!step) say(t("relaxed")); },
	"room.restarted": () => call.restart(),
	"room.ended": () => leave("ended"),
};

function heard({type, data}) {
	if (!call) return;
	const [subject, what] = type.split(".");
	if (subject === "recording") {
		const now = {started: "recording", resumed: "recording", paused: "paused"}[what];
		setRecording(now && {id: data.recording, state: now});
	} else handlers[type]?.(data);
	render();
}

const recordingText = () => t({recording: "recording_on", paused: "recording_paused"}[recording?.state] ?? "recording_off");

function setRecording(now) {
	const before = recording?.state;
	recording = now;
	if (now?.state !== before) say(recordingText(), now?.state === "recording");
	render();
}

function leave(why = "left", detail = "") {
	if (!call) return;
	stop();
	$("over-title").textContent = t(`over_${why}`);
	$("over-text").textContent = detail;
	show("over");
	$("over").focus();
}

function stop() {
	following.abort();
	call.stop();
	wakeLock?.release();
	if (document.pictureInPictureElement) document.exitPictureInPicture();
	$("settings").close();
	call = wakeLock = recording = null;
	joined = false;
	state = "";
	people.replace([]);
	render();
}

function show(part) {
	// Who only watches is asked for no device, nor whether to be recorded.
	const watches = claims(token).role === "viewer";
	$("sending").hidden = $("devices").hidden = watches;
	if (part === "lobby" && !watches) lobby.start();
	for (const id of ["lobby", "call", "over"]) $(id).hidden = id !== part;
	$(part === "call" ? "devices-now" : "devices-before").append($("devices"));
	document.body.classList.toggle("live", part === "call");
	$("usage").hidden = part !== "call";
}

// --- switches

const live = track => track?.readyState === "live";
const micOn = () => live(call.tracks.audio) && call.tracks.audio.enabled;
const camOn = () => live(call.tracks.camera);

/** Tell the room about us. It may not know us yet: then `introduce` sets it right. */
async function tell(patch) {
	told = performance.now();
	render();
	await people.change(me(), patch).catch(error => { if (error.status !== 404) say(explain(error)); });
}

async function toggleMic() {
	const wanted = !micOn();
	if (wanted && !live(call.tracks.audio)) await call.setTrack("audio", await capture("audio", ""));
	if (call.tracks.audio) call.tracks.audio.enabled = wanted;
	await tell({muted: !wanted});
}

async function setCamera(track) {
	await call.setTrack("camera", track);
	await tell({video_muted: !camOn()});
}

async function setScreen(track) {
	await call.setTrack("screen", track);
	render();
}

async function toggleCamera() {
	const id = local.get("mosaique.video");
	await setCamera(live(call.tracks.camera) ? null : await capture("video", id === "none" ? "" : id));
}

async function toggleShare() {
	if (live(call.tracks.screen)) return setScreen(null);
	const track = await captureScreen();
	track.addEventListener("ended", () => call?.tracks.screen === track && setScreen(null)); // the browser's own stop button
	await setScreen(track);
}

async function setDevice(kind, name, {target: {value}}) {
	local.set(`mosaique.${kind}`, value);
	await call.setTrack(name, value === "none" ? null : await capture(kind, value));
	await tell({muted: !micOn(), video_muted: !camOn()});
}

const record = () => (recording
	? api().call("PATCH", `/v1/recordings/${recording.id}`, {state: "stopped"})
	: api().call("POST", `${path}/recordings`, {tracks: $("tracks").checked}));

async function setPreset() {
	const {version, ...body} = await api().get(`${path}/layout`);
	await api().call("PUT", `${path}/layout`, {...body, preset: $("preset").value});
}

async function setRecorded({target: {checked}}) {
	local.set("mosaique.unrecorded", checked ? "1" : "");
	if (!call) return;
	call.recorded = !checked;
	await tell({recorded: !checked});
}

async function setRendition() {
	try { await call.setRendition($("rendition").value); } finally {
		$("rendition").value = call.rendition;
		local.set("mosaique.rendition", call.rendition);
		render();
	}
}

async function openSettings() {
	$("settings").showModal();
	await fillDevices("audio", call.tracks.audio);
	await fillDevices("video", call.tracks.camera);
}

const muteAll = () => Promise.all(people.all.filter(({id, muted}) => id !== me() && !muted).map(({id}) => people.change(id, {muted: true})));

// --- what it looks like

function press(id, is, glyph) {
	$(id).setAttribute("aria-pressed", String(Boolean(is)));
	if (glyph) $(id).replaceChildren(icon(is ? glyph : `${glyph}-off`));
}

function render() {
	$("recording").hidden = !recording;
	$("recording").textContent = recording?.state === "paused" ? t("state_paused") : "REC";
	label($("recording"), recordingText());
	$("people-title").textContent = `${t("people")} (${people.all.length})`;
	people.render();
	if (!call) return;
	const sends = may("participant");
	for (const id of ["mic", "cam"]) $(id).hidden = !sends || !canCapture;
	press("mic", micOn(), "mic");
	press("cam", live(call.tracks.camera), "camera");
	$("share").hidden = !sends || !canShare;
	press("share", live(call.tracks.screen));
	$("raise").hidden = !people.get(me());
	press("raise", people.get(me())?.hand);
	$("moderation").hidden = !may("moderator");
	$("record").textContent = t(recording ? "record_stop" : "record_start");
	$("tracks").disabled = recording;
	$("full").hidden = !document.fullscreenEnabled && !$("mix").webkitEnterFullscreen;
	$("pip").hidden = !document.pictureInPictureEnabled;
	const mode = call.rendition === "audio" ? "quality_audio" : call.resting && "weak_line";
	const notice = state === "live" ? mode : state || "connecting";
	$("notice").hidden = !notice;
	$("notice").textContent = notice ? t(notice) : "";
	$("stage").classList.toggle("audio", call.rendition === "audio" || call.resting);
}

function showPeople(open, focus) {
	$("people").hidden = !open;
	$("show-people").setAttribute("aria-expanded", String(open));
	if (focus) $(open ? "people-close" : "show-people").focus();
}

const keepAwake = async () => { wakeLock = await navigator.wakeLock?.request("screen").catch(() => null); };

/** A click. Saying no to the browser's own question is an answer and not a fault. */
const click = (id, work) => on(id, async () => {
	try { await work(); } catch (error) {
		if (error.name !== "NotAllowedError") throw error;
		if (id !== "share") say(t("capture_refused"));
	}
});
click("mic", toggleMic);
click("cam", toggleCamera);
click("share", toggleShare);
click("raise", () => tell({hand: !people.get(me())?.hand}));
click("record", record);
click("mute-all", muteAll);
click("leave", () => leave());
click("again", () => show("lobby"));
click("unblock", hear);
click("people-close", () => showPeople(false, true));
click("show-people", () => showPeople($("people").hidden, true));
click("show-settings", openSettings);
click("full", () => { $("settings").close(); return $("stage").requestFullscreen ? $("stage").requestFullscreen() : $("mix").webkitEnterFullscreen(); });
click("pip", () => $("mix").requestPictureInPicture());
on("lobby", join, "submit");
on("rendition", setRendition, "change");
on("preset", setPreset, "change");
on("unrecorded", setRecorded, "change");
on("microphone", event => call && setDevice("audio", "audio", event), "change");
on("camera", event => call && setDevice("video", "camera", event), "change");
on("people", ({key: pressed}) => { if (pressed === "Escape") showPeople(false, true); }, "keydown");
for (const element of document.querySelectorAll("[data-icon]")) element.append(icon(element.dataset.icon));

addEventListener("online", () => call?.nudge());
document.addEventListener("visibilitychange", () => {
	if (document.hidden || !call) return;
	call.nudge();
	keepAwake();
});
addEventListener("pagehide", () => call?.stop());
addEventListener("pageshow", ({persisted}) => { if (persisted) location.reload(); });

await ready;
$("room-name").textContent = room;
document.title = `${room} – Mosaique`;
$("rendition").value = local.get("mosaique.rendition") ?? "auto";
$("unrecorded").checked = Boolean(local.get("mosaique.unrecorded"));
if (claims(token).name) $("name").value = claims(token).name;
onLanguage(() => {
	const chosen = $("preset").value;
	$("preset").replaceChildren(...PRESETS.filter(name => name !== "custom").map(name => new Option(t(`preset_${name}`), name)));
	$("preset").value = chosen;
	render();
});
show("lobby");
if (token && !expired()) api().get(path).then(({recording: running}) => { $("notice-recording").hidden = !running; }, () => {});
