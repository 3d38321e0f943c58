// The archive page: search, play, check, take away, keep.
import {clock, megabytes, number, onLanguage, ready, t, when} from "./i18n.js";
import {$, ask, attempt, button, h, on, say} from "./dom.js";
import {eventParser} from "./api.js";
import {gate, route} from "./gate.js";
import {draw, timeAt} from "./plot.js";

const STATES = ["recording", "paused", "sealing", "archived", "incomplete", "failed", "deleted"];
const ONLY = ["held", "expired", "damaged"];
const LISTED = ["join", "leave", "rename", "mute", "unmute", "share", "unshare", "speaker", "layout", "pause", "resume", "gap", "notice", "end"];
const LOOKS = {archived: "good", failed: "bad", incomplete: "bad", recording: "recording"};
const NOTICES = {recording: "recording_on", recorded: "recorded", "not recorded": "recording_off"};
const LOUD = [["integrated_lufs", "LUFS"], ["true_peak_dbtp", "dBTP"], ["range_lu", "LU"]];
const MAX_REASON = 1000, MAX_NOTE = 2000;

let api;
let next = null; // cursor of the page after the last one shown
let shown = null;
let moveHead = () => {};

const path = (rest = "") => `/v1/recordings/${encodeURIComponent(shown.id)}${rest}`;
/** What the browser loads by itself can't carry a header: RFC 6750 section 2.3. */
const address = rest => `${path(rest)}?access_token=${encodeURIComponent(api.token)}`;

function badges({state, hold, damaged, complete}) {
	return h("span.row", h("span", {class: `badge ${LOOKS[state] ?? ""}`}, t(`state_${state}`)),
		complete === false && h("span.badge.bad", t("state_incomplete")), damaged.length > 0 && h("span.badge.bad", t("only_damaged")), hold && h("span.badge", t("only_held")));
}

async function search(more) {
	const query = new URLSearchParams([...new FormData($("filter"))].filter(([, text]) => text));
	// The days are the reader's own; the server compares instants.
	for (const [name, time] of [["from", "T00:00:00"], ["to", "T23:59:59"]]) {
		if (query.get(name)) query.set(name, new Date(query.get(name) + time).toISOString());
	}
	if (more) query.set("cursor", next);
	const page = await api.get(`/v1/recordings?${query}`);
	if (!more) $("found").replaceChildren();
	$("found").append(...page.items.map(item => h("tr", {},
		h("th", {scope: "row"}, h("a", {href: `#id=${item.id}`}, when(item.started))), h("td", item.room),
		h("td.number", clock(item.duration)), h("td.number", megabytes(item.size)), h("td", badges(item)), h("td", item.note))));
	next = page.cursor;
	$("more").hidden = !next;
	$("none").hidden = $("found").children.length > 0;
}

async function open(id) {
	$("list").hidden = $("detail").hidden = true;
	shown = null;
	$("player").removeAttribute("src");
	$("chapter-track").removeAttribute("src");
	for (const name of ["verified", "files", "audit", "chapters", "plot"]) $(name).replaceChildren();
	for (const name of ["files-box", "audit-box"]) $(name).open = false;
	if (!id) {
		$("list").hidden = false;
		return search();
	}
	shown = {id};
	const found = await api.get(path()).catch(async error => {
		await open();
		throw error;
	});
	shown = {...found, timeline: []};
	$("detail").hidden = false;
	const playable = shown.state === "archived";
	for (const name of ["player", "takeaway", "keeping"]) $(name).hidden = !playable;
	$("plot-box").hidden = $("chapters-box").hidden = true;
	render();
	$("detail-title").focus();
	if (!playable) return;
	$("get-media").href = address("/media");
	$("player").src = `${address("/media")}&indexed=1`;
	$("get-media").download = `${shown.room}-${id}.mp4`;
	$("get-bag").href = address("/bag");
	$("get-premis").href = address("/premis");
	$("chapter-track").src = address("/files/data/chapters.vtt");
	$("chapter-track").track.mode = "hidden"; // loads the cues without a menu
	const lines = await (await api.send("GET", path("/files/data/timeline.jsonl"))).text();
	shown.timeline = lines.split("\n").filter(Boolean).map(line => JSON.parse(line));
	render();
	$("plot-box").hidden = false;
	moveHead = draw($("plot"), shown.timeline, shown.duration || 1);
	moveHead(0);
}

/** Terms and definitions of what is known. */
const facts = entries => Object.entries(entries).filter(([, fact]) => fact).flatMap(([key, fact]) => [h("dt", t(key)), h("dd", fact)]);

function render() {
	if (!shown) return;
	const {deleted, hold, loudness, retention, damaged} = shown;
	const who = id => shown.participants.find(person => person.id === id)?.name;
	$("detail-title").textContent = shown.room;
	$("facts").replaceChildren(...facts({
		state: [badges(shown), " ", shown.reason], recorded: when(shown.started), duration: clock(shown.duration), file_size: megabytes(shown.size),
		loudness: loudness && LOUD.map(([name, unit]) => loudness[name] != null && `${number(loudness[name], 1)} ${unit}`).filter(Boolean).join(" · "),
		people: [...new Set(shown.participants.map(({name}) => name))].join(", "), note: shown.note, "SHA-256": shown.sha256,
		state_deleted: deleted && `${deleted.by}, ${when(deleted.time)}: ${deleted.reason}`,
	}));
	$("terms").replaceChildren(...facts({
		only_held: hold && `${hold.reason} (${hold.by}, ${when(hold.since)})`,
		keep_until: retention && when(retention.until), checked: shown.checked && when(shown.checked),
		only_damaged: damaged.length > 0 && h("span.error", damaged.join(", ")),
	}));
	$("release").hidden = !hold;
	$("until").value = retention ? retention.until.slice(0, 10) : "";
	$("timeline").replaceChildren(...shown.timeline.filter(({event, participant}) => LISTED.includes(event) && (participant || event !== "speaker")).map(({t: at, event, name, participant, version}) => h("li", {},
		button({class: "quiet", onclick: () => seek(at)}, h("time", clock(at)), `${t(`event_${event}`)} ${event === "notice"
			? [who(participant), t(NOTICES[name] ?? name)].filter(Boolean).join(": ") : name ?? who(participant) ?? version ?? ""}`))));
}

function seek(seconds) {
	$("player").currentTime = seconds;
	attempt(() => $("player").play());
}

const cues = () => [...$("chapter-track").track.cues ?? []];

function listChapters() {
	$("chapters").replaceChildren(...cues().map(cue => h("li", {},
		button({class: "quiet", onclick: () => seek(cue.startTime)}, h("time", clock(cue.startTime)), cue.getCueAsHTML().textContent))));
	$("chapters-box").hidden = !cues().length;
}

function follow() {
	const at = $("player").currentTime;
	moveHead(at);
	cues().forEach(({startTime, endTime}, i) => $("chapters").children[i]?.firstChild.classList.toggle("now", startTime <= at && at < endTime));
}

// --- check and take away

async function verify() {
	const bar = $("reading");
	$("verify").disabled = true;
	bar.hidden = false;
	bar.removeAttribute("value");
	$("verified").replaceChildren(t("verifying"));
	try {
		const response = await api.send("POST", path("/verify"), {headers: {Accept: "text/event-stream"}});
		const reader = response.body.getReader(), text = new TextDecoder(), parse = eventParser();
		let result;
		for (let part = await reader.read(); !part.done; part = await reader.read()) {
			for (const event of parse(text.decode(part.value, {stream: true}))) {
				if (event.total) Object.assign(bar, {max: event.total, value: event.done});
				if (event.detail) throw new Error(event.detail);
				if (event.files) result = event;
			}
		}
		if (!result) throw new Error(t("offline"));
		$("verified").replaceChildren(h("p", {class: result.ok ? "note" : "error"}, t(result.ok ? "verify_ok" : "verify_bad")),
			h("ul.small", result.files.map(file => h("li", {class: file.ok ? "soft" : "error"}, `${file.ok ? "✓" : "✗"} ${file.path}`))));
		await reread();
	} catch (error) {
		$("verified").replaceChildren();
		throw error;
	} finally {
		$("verify").disabled = false;
		bar.hidden = true;
	}
}

async function listFiles() {
	if (!$("files-box").open || $("files").children.length) return;
	const files = await api.get(path("/files"));
	$("files").replaceChildren(...files.map(file => h("li", {},
		h("a", {href: address(`/files/${file.path}`), download: file.path.split("/").pop()}, file.path), ` ${number(file.size / 1000, 1)} kB`)));
}

// --- keep

async function reread() {
	const {timeline} = shown;
	shown = {...await api.get(path()), timeline};
	render();
	$("audit").replaceChildren();
	$("audit-more").hidden = true;
	if ($("audit-box").open) await listAudit();
}

async function decide(method, rest, body) {
	await api.call(method, path(rest), body);
	await reread();
	say(t("done"));
}

async function hold() {
	const reason = await ask(t("hold_why"), t("hold"), shown.hold?.reason ?? "", MAX_REASON);
	if (reason) await decide("PUT", "/hold", {reason});
}

async function release() {
	if (await ask(t("release_sure"), t("release"))) await decide("DELETE", "/hold");
}

async function retain() {
	const day = $("until").value;
	await decide("PATCH", "/retention", {until: day ? new Date(`${day}T23:59:59`).toISOString() : null});
}

async function editNote() {
	const note = await ask(t("edit_note"), t("apply"), shown.note, MAX_NOTE);
	if (note) await decide("PATCH", "", {note});
}

async function remove() {
	const reason = await ask(t("delete_why"), t("delete"), "", MAX_REASON);
	if (!reason) return;
	await api.call("DELETE", path(), {reason});
	say(t("done"));
	await open(shown.id);
}

let auditNext = null;
async function listAudit(more) {
	if (!$("audit-box").open || (!more && $("audit").children.length)) return;
	const page = await api.get(`/v1/audit?recording=${shown.id}&limit=50${more ? `&cursor=${auditNext}` : ""}`);
	auditNext = page.cursor;
	$("audit-more").hidden = !auditNext;
	$("audit").append(...page.items.map(({time, act, by, detail}) => h("li", {},
		`${when(time)} – ${t(`act_${act}`)} – ${by} `, h("span.soft", detail.path ?? detail.reason ?? detail.until ?? detail.damaged?.join(", ") ?? ""))));
}

await ready;
on("filter", () => search(), "submit");
on("more", () => search(true));
on("verify", verify);
on("hold", hold);
on("release", release);
on("edit-note", editNote);
on("retention", retain, "submit");
on("delete", remove);
on("files-box", listFiles, "toggle");
on("audit-box", () => listAudit(), "toggle");
on("audit-more", () => listAudit(true));
on("chapter-track", listChapters, "load");
on("player", follow, "timeupdate");
on("plot", event => seek(timeAt($("plot"), event.clientX, shown.duration)));
on("plot", event => {
	const by = {ArrowLeft: -5, ArrowRight: 5, PageDown: -60, PageUp: 60, Home: -1e9, End: 1e9}[event.key];
	if (!by) return;
	event.preventDefault();
	seek(Math.min(shown.duration, Math.max(0, $("player").currentTime + by)));
}, "keydown");
onLanguage(() => {
	document.title = `${t("archive")} – Mosaique`;
	const options = {state: [STATES, value => t(`state_${value}`)], only: [ONLY, value => t(`only_${value}`)]};
	for (const [name, [values, word]] of Object.entries(options)) {
		const chosen = $(name).value;
		$(name).replaceChildren(new Option(t("any"), ""), ...values.map(value => new Option(word(value), value)));
		$(name).value = chosen;
	}
	render();
	if (api && !shown) attempt(() => search());
});
gate("/v1/recordings?limit=1", known => {
	api = known;
	route("id", id => attempt(() => open(id)));
});
