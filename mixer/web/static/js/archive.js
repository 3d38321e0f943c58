// The archive page: search, play, check, take away.
import {clock, megabytes, onLanguage, ready, t, when} from "./i18n.js";
import {$, attempt, button, h, on} from "./dom.js";
import {gate, route} from "./gate.js";

const STATES = ["recording", "paused", "sealing", "archived", "incomplete", "failed", "deleted"];
const LOOKS = {archived: "good", failed: "bad", incomplete: "bad", recording: "recording"};

let api;
let next = null; // cursor of the page after the last one shown
let shown = null;

const badge = state => h("span", {class: `badge ${LOOKS[state] ?? ""}`}, t(`state_${state}`));
const path = (rest = "") => `/v1/recordings/${encodeURIComponent(shown.id)}${rest}`;
/** What the browser loads by itself can't carry a header: RFC 6750 section 2.3. */
const address = rest => `${path(rest)}?access_token=${encodeURIComponent(api.token)}`;

async function search(more) {
	const query = new URLSearchParams([...new FormData($("filter"))].filter(([, text]) => text));
	// The days are the reader's own; the server compares instants.
	for (const [name, time] of [["from", "T00:00:00"], ["to", "T23:59:59"]]) {
		if (query.get(name)) query.set(name, new Date(query.get(name) + time).toISOString());
	}
	if (more) query.set("cursor", next);
	const page = await api.get(`/v1/recordings?${query}`);
	if (!more) $("found").replaceChildren();
	$("found").append(...page.items.map(({id, room, started, duration, size, state}) => h("tr", {},
		h("th", {scope: "row"}, h("a", {href: `#id=${id}`}, when(started))), h("td", room),
		h("td.number", clock(duration)), h("td.number", megabytes(size)), h("td", badge(state)))));
	next = page.cursor;
	$("more").hidden = !next;
	$("none").hidden = $("found").children.length > 0;
}

async function open(id) {
	$("list").hidden = Boolean(id);
	$("detail").hidden = !id;
	shown = null;
	$("player").removeAttribute("src");
	$("verified").replaceChildren();
	if (!id) return search();
	shown = {id};
	shown = {...await api.get(path()), timeline: []};
	const playable = ["archived", "incomplete"].includes(shown.state);
	$("player").hidden = $("takeaway").hidden = !playable;
	render();
	$("detail-title").focus();
	if (!playable) return;
	$("player").src = $("get-media").href = address("/media");
	$("get-media").download = `${shown.room}-${id}.mp4`;
	$("get-bag").href = address("/bag");
	const lines = await (await api.send("GET", path("/files/data/timeline.jsonl"))).text();
	shown.timeline = lines.split("\n").filter(Boolean).map(line => JSON.parse(line));
	render();
}

function render() {
	if (!shown) return;
	const facts = {
		state: badge(shown.state), recorded: when(shown.started), duration: clock(shown.duration), file_size: megabytes(shown.size),
		people: shown.participants.map(({name}) => name).join(", "), note: shown.note, "SHA-256": shown.sha256,
	};
	const who = id => shown.participants.find(person => person.id === id)?.name;
	$("detail-title").textContent = shown.room;
	$("facts").replaceChildren(...Object.entries(facts).filter(([, fact]) => fact).flatMap(([key, fact]) => [h("dt", t(key)), h("dd", fact)]));
	$("timeline").replaceChildren(...shown.timeline.map(({t: at, event, name, participant, version}) => h("li", {},
		button({class: "quiet", onclick: () => seek(at)}, h("time", clock(at)), `${t(`event_${event}`)} ${name ?? who(participant) ?? version ?? ""}`))));
}

function seek(seconds) {
	$("player").currentTime = seconds;
	attempt(() => $("player").play());
}

async function verify() {
	$("verify").disabled = true;
	$("verified").replaceChildren(t("verifying"));
	try {
		const {ok, files} = await api.call("POST", path("/verify"));
		$("verified").replaceChildren(h("p", {class: ok ? "note" : "error"}, t(ok ? "verify_ok" : "verify_bad")),
			h("ul.small", files.map(file => h("li", {class: file.ok ? "soft" : "error"}, `${file.ok ? "✓" : "✗"} ${file.path}`))));
	} catch (error) {
		$("verified").replaceChildren();
		throw error;
	} finally { $("verify").disabled = false; }
}

await ready;
on("filter", () => search(), "submit");
on("more", () => search(true));
on("verify", verify);
onLanguage(() => {
	const chosen = $("state").value;
	$("state").replaceChildren(new Option(t("any_state"), ""), ...STATES.map(state => new Option(t(`state_${state}`), state)));
	$("state").value = chosen;
	render();
	if (api && !shown) attempt(() => search());
});
gate("/v1/recordings?limit=1", known => {
	api = known;
	route("id", id => attempt(() => open(id)));
});
