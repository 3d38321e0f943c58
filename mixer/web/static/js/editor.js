// The layout editor: a form over the contract's layout body, regions drawn on the live preview.
import {number, t, when} from "./i18n.js";
import {$, attempt, button, explain, h, on, say, svg, unseen} from "./dom.js";
import {PRESETS} from "./api.js";

const STEPS = 12; // the drawing grid: halves, thirds, quarters, sixths; finer fractions are typed
const PREVIEW_MS = 2000;
const SETTLE_MS = 300;
const EDGES = ["x", "y", "width", "height"];

/** The value of "2/3", "0.5", "1"; NaN of anything else. */
export function value(text) {
	const [, top, bottom = 1] = /^(\d+(?:\.\d+)?)(?:\/(\d+))?$/.exec(text) ?? [];
	return top / bottom;
}

/** `count` twelfths, from `low` to `high`, in lowest terms: 8 is "2/3". */
export function twelfths(count, low, high) {
	const whole = Math.min(high, Math.max(low, Math.round(count)));
	const by = [12, 6, 4, 3, 2, 1].find(n => whole % n === 0);
	return by === STEPS ? String(whole / STEPS) : `${whole / by}/${STEPS / by}`;
}

/** One editor lives as long as the page; `open` points it at a room. */
export class Editor {
	#body = null;
	#active = -1;
	#drag = null;
	#busy = false;
	#settle = 0;

	constructor() {
		on("layout", () => this.#read(), "input");
		on("layout", () => this.#apply(), "submit");
		on("revert", () => this.load());
		on("add-region", () => this.#add(["0", "0", "1/2", "1/2"]));
		on("board", event => this.#grab(event), "pointerdown");
		on("board", event => this.#move(event), "pointermove");
		on("board", () => { this.#drag = null; this.#fields(); }, "pointerup");
		setInterval(() => document.hidden || this.#preview(), PREVIEW_MS);
	}

	async open(api, path, people) {
		Object.assign(this, {api, path, people});
		await this.load();
	}

	close() { this.#body = null; }

	async load() {
		const {version, ...body} = await this.api.get(`${this.path}/layout`);
		this.#body = body;
		$("fit").value = body.fit;
		$("max-tiles").value = body.max_tiles;
		$("background").value = body.canvas.background;
		$("names").checked = body.names;
		$("border").checked = body.speaker_border;
		this.render();
		await this.#versions(version);
	}

	/** Everything that is made by script, in the page's language. */
	render() {
		if (!this.#body) return;
		const {pins, preset} = this.#body;
		$("presets").replaceChildren(...PRESETS.map(name => h("label.check.choice",
			h("input", {type: "radio", name: "preset", value: name, checked: name === preset}), t(`preset_${name}`))));
		$("pins").replaceChildren(...this.people.all.map(({id, name}) => h("label.field", name,
			h("input", {type: "number", min: 1, max: 25, "data-pin": id, value: id in pins && pins[id] + 1}))));
		this.#fields();
		this.#changed();
	}

	#read() {
		const body = this.#body;
		body.preset = document.querySelector("[name=preset]:checked").value;
		body.fit = $("fit").value;
		body.names = $("names").checked;
		body.speaker_border = $("border").checked;
		body.max_tiles = $("max-tiles").valueAsNumber;
		body.canvas.background = $("background").value;
		body.pins = Object.fromEntries([...$("pins").querySelectorAll("input")].filter(input => input.value)
			.map(input => [input.dataset.pin, input.valueAsNumber - 1]));
		if (body.preset === "custom" && !body.regions.length) this.#add(["0", "0", "1", "1"]);
		this.#changed();
	}

	#changed() {
		$("custom").hidden = this.#body.preset !== "custom";
		this.#draw();
		clearTimeout(this.#settle);
		this.#settle = setTimeout(() => this.#preview(true), SETTLE_MS);
	}

	async #preview(withCost) {
		if (this.#busy || !this.#body) return;
		this.#busy = true;
		const ask = Accept => this.api.send("POST", `${this.path}/layout/preview`, {body: this.#body, headers: {Accept}});
		try {
			if (withCost) {
				const {tiles, cost} = await (await ask("application/json")).json();
				$("cost").textContent = t("cost", {n: tiles.length, cores: number(cost.cpu_cores, 2), kbps: number(cost.kbps)});
			}
			const picture = await (await ask("image/png")).blob();
			URL.revokeObjectURL($("preview").src);
			$("preview").src = URL.createObjectURL(picture);
			$("layout-errors").replaceChildren();
		} catch (error) {
			const faults = error.errors?.length ? error.errors : [{loc: [], msg: explain(error)}];
			$("layout-errors").replaceChildren(...faults.map(({loc, msg}) => h("li", `${loc.join(" › ")} ${msg}`)));
		} finally { this.#busy = false; }
	}

	async #apply() {
		const {version} = await this.api.call("PUT", `${this.path}/layout`, this.#body);
		say(t("applied", {version}));
		await this.#versions(version);
	}

	async #versions(current) {
		const versions = await this.api.get(`${this.path}/layout/versions`);
		const goBack = version => attempt(async () => {
			await this.api.call("POST", `${this.path}/layout/rollback`, {version});
			await this.load();
		});
		$("versions").replaceChildren(...versions.slice(0, 10).map(({version, at, by, layout}) => h("li", {},
			h("span.grow", `${version}. ${t(`preset_${layout.preset}`)} `, h("span.soft.small", `${when(at)}, ${by}`)),
			version === current ? h("span.badge.good", t("in_force"))
				: button({onclick: () => goBack(version)}, t("go_back"), unseen(` ${version}`)))));
	}

	// --- regions

	#add([x, y, width, height]) {
		const {regions} = this.#body;
		let n = 1;
		while (regions.some(({id}) => id === `r${n}`)) n++;
		regions.push({id: `r${n}`, x, y, width, height, z: regions.length, source: n > 1 ? "any" : "speaker", fit: null});
		this.#active = regions.length - 1;
		this.#fields();
		this.#changed();
	}

	/** The same regions as fields: for keyboards, and for fractions that no grid has. */
	#fields() {
		const {regions} = this.#body;
		$("sources").replaceChildren(...["speaker", "presentation", "any", ...this.people.all.map(({id}) => `participant:${id}`)]
			.map(source => h("option", {value: source})));
		$("regions").replaceChildren(...regions.map((region, i) => {
			const field = (name, more) => h("label.field", t(name), h("input", {
				value: region[name], ...more, onfocus: () => { this.#active = i; this.#draw(); },
				oninput: ({target}) => {
					region[name] = name === "z" ? target.valueAsNumber || 0 : target.value;
					target.setAttribute("aria-invalid", String(EDGES.includes(name) && !(value(target.value) <= 1)));
				},
			}));
			const remove = () => { regions.splice(i, 1); this.#fields(); this.#changed(); };
			return h("fieldset.card.fields", {label: region.id},
				["id", ...EDGES].map(name => field(name)), field("z", {type: "number"}), field("source", {list: "sources"}),
				h("label.field", t("fit"), h("select", { onchange: ({target}) => { region.fit = target.value || null; } },
					["", "cover", "contain"].map(fit => h("option", {value: fit, selected: fit === (region.fit ?? "")}, t(fit ? `fit_${fit}` : "fit_layout"))))),
				button({onclick: remove}, t("remove"), unseen(` ${region.id}`)));
		}));
	}

	#draw() {
		const {canvas: {width, height}, regions, preset} = this.#body;
		$("board").toggleAttribute("hidden", preset !== "custom");
		$("board").setAttribute("viewBox", `0 0 ${width} ${height}`);
		const lines = Array.from({length: STEPS - 1}, (_, i) => (i + 1) / STEPS).flatMap(at => [
			svg("line", {x1: at * width, x2: at * width, y2: height}), svg("line", {y1: at * height, y2: at * height, x2: width})]);
		$("board").replaceChildren(...lines, ...regions.map((region, i) => {
			const [x, y, w, down] = EDGES.map((name, axis) => (value(region[name]) || 0) * (axis % 2 ? height : width));
			return svg("g", {class: i === this.#active ? "active" : "", "data-i": i}, svg("rect", {x, y, width: w, height: down}),
				svg("text", {x: x + 14, y: y + 38}, region.id), svg("path", {d: `M${x + w} ${y + down}v-48l-48 48z`}));
		}));
	}

	#at({clientX, clientY}) {
		const {left, top, width, height} = $("board").getBoundingClientRect();
		return [((clientX - left) / width) * STEPS, ((clientY - top) / height) * STEPS];
	}

	/** On a region: move it, or size it by its corner. On free ground: draw a new one. */
	#grab(event) {
		const from = this.#at(event);
		const group = event.target.closest("g");
		if (group) this.#active = Number(group.dataset.i);
		else this.#add([...from.map(cell => twelfths(cell - 0.5, 0, STEPS - 1)), "1/12", "1/12"]);
		const region = this.#body.regions[this.#active];
		this.#drag = {region, from, sizes: !group || event.target.tagName === "path", start: EDGES.map(name => value(region[name]) * STEPS)};
		$("board").setPointerCapture(event.pointerId);
		this.#draw();
	}

	#move(event) {
		if (!this.#drag) return;
		const {region, sizes, from, start} = this.#drag;
		this.#at(event).forEach((cell, axis) => {
			const [origin, length, by] = [start[axis], start[axis + 2], cell - from[axis]];
			if (sizes) region[EDGES[axis + 2]] = twelfths(length + by, 1, STEPS - Math.ceil(origin));
			else region[EDGES[axis]] = twelfths(origin + by, 0, STEPS - Math.ceil(length));
		});
		this.#changed();
	}
}
