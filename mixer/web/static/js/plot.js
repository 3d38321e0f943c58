// Who was there and who spoke when, drawn from timeline.jsonl. Pure but for the drawing.
import {clock} from "./i18n.js";
import {svg} from "./dom.js";

const ROW = 26, TOP = 20, LABEL = 120, LEAST = 480;

/** Rows of {id, name, there: [[from, to]], speaks: [[from, to]]} in the order of joining, and holes (pauses, gaps). */
export function tracks(events, duration) {
	const rows = new Map();
	const holes = [];
	const row = ({participant, name}) => {
		if (!rows.has(participant)) rows.set(participant, {id: participant, name: participant, there: [], speaks: []});
		const found = rows.get(participant);
		if (name) found.name = name;
		return found;
	};
	const begin = (spans, at) => { if (!spans.length || spans.at(-1)[1] !== null) spans.push([at, null]); };
	const close = (spans, at) => { if (spans.length && spans.at(-1)[1] === null) spans.at(-1)[1] = at; };
	// The mixer tells each voice's turns; recordings from before it did tell the loudest speaker only.
	const exact = events.some(({event}) => event === "speaking");
	const hush = at => rows.forEach(({speaks}) => close(speaks, at));
	for (const {t, event, duration: lasted, ...who} of events) {
		if (event === "gap") holes.push([t, t + (lasted ?? 0)]);
		else if (event === "resume") holes.push([t, t]);
		else if (!who.participant) continue;
		else if (event === "join") begin(row(who).there, t);
		else if (event === "leave") { close(row(who).there, t); close(row(who).speaks, t); }
		else if (event === "rename") row(who);
		else if (exact && event === "speaking") begin(row(who).speaks, t);
		else if (exact && event === "silent") close(row(who).speaks, t);
		else if (!exact && event === "speaker") { hush(t); begin(row(who).speaks, t); }
	}
	for (const {there, speaks} of rows.values()) { close(there, duration); close(speaks, duration); }
	return {rows: [...rows.values()], holes};
}

/** A step of the scale that gives eight marks at most. */
export const step = duration => [1, 5, 10, 30, 60, 300, 600, 1800, 3600, 7200].find(s => duration / s <= 8) ?? 14400;

/** Draw into `plot`; returns a function that moves the playhead. */
export function draw(plot, events, duration) {
	const {rows, holes} = tracks(events, duration);
	const height = TOP + rows.length * ROW + 4;
	const width = Math.max(LEAST, plot.parentElement.clientWidth); // so that letters keep their size
	const x = t => LABEL + (width - LABEL) * Math.min(1, Math.max(0, t / duration));
	const bar = (kind, [from, to], y, size) => svg("rect", {class: kind, x: x(from), y, width: Math.max(1.5, x(to) - x(from)), height: size});
	const parts = [];
	for (let at = 0; at <= duration; at += step(duration)) parts.push(svg("text", {class: "soft", x: x(at), y: 12, "text-anchor": x(at) > width - 60 ? "end" : "start"}, clock(at)));
	rows.forEach(({name, there, speaks}, i) => {
		const y = TOP + i * ROW;
		const label = svg("text", {x: 0, y: y + 16}, name.length > 16 ? `${name.slice(0, 15)}…` : name);
		label.append(svg("title", {}, name));
		parts.push(label, ...there.map(span => bar("there", span, y + 10, 4)), ...speaks.map(span => bar("speaks", span, y + 4, 16)));
	});
	parts.push(...holes.map(span => bar("hole", span, TOP, height - TOP)));
	const now = svg("line", {class: "now", y1: TOP - 4, y2: height, x1: LABEL, x2: LABEL});
	plot.setAttribute("viewBox", `0 0 ${width} ${height}`);
	plot.setAttribute("aria-valuemax", Math.round(duration));
	plot.replaceChildren(...parts, now);
	return t => {
		now.setAttribute("x1", x(t));
		now.setAttribute("x2", x(t));
		plot.setAttribute("aria-valuenow", Math.round(t));
		plot.setAttribute("aria-valuetext", clock(t));
	};
}

/** The time under a pointer. */
export function timeAt(plot, clientX, duration) {
	const {left, width} = plot.getBoundingClientRect();
	const whole = plot.viewBox.baseVal.width;
	const at = (clientX - left) / width * whole;
	return Math.min(duration, Math.max(0, (at - LABEL) / (whole - LABEL) * duration));
}
