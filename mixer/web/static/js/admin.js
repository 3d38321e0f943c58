// The admin page: all rooms, and one at a time.
import {locale, number, onLanguage, ready, t} from "./i18n.js";
import {$, ask, attempt, button, h, on, say, unseen} from "./dom.js";
import {follow} from "./api.js";
import {gate, route} from "./gate.js";
import {Editor} from "./editor.js";
import {People} from "./people.js";

const STATS_MS = 3000;
const VALID_FOR = [[2, "hour"], [1, "day"], [7, "day"]];
const SECONDS = {hour: 3600, day: 86400};

let api;
let current = null; // the room on show: {name, path, people, recording, off}

const numeric = (value, digits) => h("td.number", value == null ? "–" : number(value, digits));
const heading = (...content) => h("th", {scope: "row"}, ...content);

// --- all rooms

async function listRooms() {
	const rooms = await api.get("/v1/rooms");
	$("none").hidden = rooms.length > 0;
	$("rooms").replaceChildren(...rooms.map(({name, participants, recording}) => h("tr", {},
		heading(h("a", {href: `#room=${name}`}, name)),
		h("td", `${number(participants)} `, unseen(t("people"))),
		h("td", recording && h("span.badge.recording", "REC")),
		h("td.number", button({onclick: () => attempt(() => endRoom(name))}, t("end"), unseen(` ${name}`))))));
}

async function endRoom(name) {
	if (!await ask(t("end_sure", {name}), t("end"))) return;
	await api.call("DELETE", `/v1/rooms/${name}`);
	if (location.hash) location.hash = "";
	else await listRooms();
}

async function createRoom() {
	const body = Object.fromEntries([...new FormData($("create"))].filter(([, text]) => text));
	await api.call("POST", "/v1/rooms", {...body, record: $("create-record").checked});
	$("create").reset();
	location.hash = `room=${body.name}`;
}

// --- one room

async function openRoom(name) {
	current?.off.abort();
	editor.close();
	current = null;
	$("all").hidden = Boolean(name);
	$("one").hidden = !name;
	document.title = `${name ?? t("admin")} – Mosaique`;
	if (!name) return listRooms();
	const path = `/v1/rooms/${encodeURIComponent(name)}`;
	const person = id => `${path}/participants/${encodeURIComponent(id)}`;
	const people = new People($("people"), {
		me: () => null, moderates: () => true, withVolume: true,
		change: (id, patch) => api.call("PATCH", person(id), patch),
		remove: id => api.call("DELETE", person(id)),
	});
	const here = {name, path, people, recording: null, off: new AbortController()};
	current = here;
	$("room-title").textContent = name;
	$("room-link").href = `/r/${name}`;
	$("link-row").hidden = true;
	await refresh(here);
	await editor.open(api, path, people);
	await showStats(here);
	follow(name, async () => api.token, {
		signal: here.off.signal,
		onOpen: () => attempt(() => refresh(here)),
		onEvent: ({type, data}) => {
			if (type === "speaker.changed") people.speaking(data.speaking);
			else if (type === "room.ended") location.hash = "";
			else attempt(() => refresh(here));
		},
	});
}

async function refresh(here) {
	const [room, list] = await Promise.all([api.get(here.path), api.get(`${here.path}/participants`)]);
	if (here !== current) return;
	const before = here.people.all.length;
	here.people.replace(list);
	here.recording = room.recording;
	if (list.length !== before) editor.render();
	render();
}

function render() {
	if (!current) return;
	const state = current.recording?.state;
	$("nobody").hidden = current.people.all.length > 0;
	current.people.render();
	$("record-state").textContent = t(state ? `state_${state}` : "recording_off");
	$("record").textContent = t(state ? "record_stop" : "record_start");
	$("pause").textContent = t(state === "paused" ? "event_resume" : "event_pause");
	$("pause").hidden = !state;
	$("tracks").disabled = state;
}

const changeRecording = state => api.call("PATCH", `/v1/recordings/${current.recording.id}`, {state});

async function record() {
	if (current.recording) await changeRecording("stopped");
	else await api.call("POST", `${current.path}/recordings`, {note: $("note").value, tracks: $("tracks").checked});
	await refresh(current);
}

async function pause() {
	await changeRecording(current.recording.state === "paused" ? "recording" : "paused");
	await refresh(current);
}

async function invite() {
	const body = {role: $("role").value, name: $("guest").value.trim(), ttl: Number($("ttl").value)};
	const {token} = await api.call("POST", `${current.path}/tokens`, body);
	$("link").value = `${location.origin}/r/${current.name}#token=${token}`;
	$("link-row").hidden = false;
	$("link").select();
}

async function copy() {
	await navigator.clipboard.writeText($("link").value);
	say(t("copied"));
}

async function showStats(here) {
	const {renditions, ticks} = await api.get(`${here.path}/stats`);
	if (here !== current) return;
	$("stats").replaceChildren(...Object.entries(renditions).map(([name, {fps, kbps, viewers, encode_ms: ms}]) =>
		h("tr", heading(name), numeric(fps, 1), numeric(kbps), numeric(viewers), numeric(ms, 1))));
	const {audio, video} = ticks;
	$("ticks").textContent = t("ticks", {audio: number(audio.dropped), video: number(video.dropped), ms: number(video.scale_ms + video.compose_ms, 1)});
}

const editor = new Editor();
await ready;
setInterval(() => current && !document.hidden && showStats(current).catch(() => {}), STATS_MS);
on("create", createRoom, "submit");
on("invite", invite, "submit");
on("record", record);
on("pause", pause);
on("copy", copy);
on("end", () => endRoom(current.name));
onLanguage(() => {
	$("ttl").replaceChildren(...VALID_FOR.map(([n, unit]) => new Option(
		new Intl.NumberFormat(locale, {style: "unit", unit, unitDisplay: "long"}).format(n), n * SECONDS[unit])));
	render();
	editor.render();
});
gate("/v1/rooms", known => {
	api = known;
	route("room", name => attempt(() => openRoom(name)));
});
