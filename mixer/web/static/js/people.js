// The list of who is here. Rows are updated in place, so that focus stays where it was.
import {t} from "./i18n.js";
import {ask, attempt, button, h, icon, unseen} from "./dom.js";

const initials = name => name.split(/\s+/).map(([letter = ""]) => letter).filter((_, i, all) => !i || i === all.length - 1).join("").toUpperCase();

export class People {
	#people = new Map();

	/** `asks`: `change(id, patch)`, `remove(id)`, `moderates()`, `me()` (our id), `withVolume`. */
	constructor(list, asks) { Object.assign(this, {list, withVolume: false, ...asks}); }

	get all() { return [...this.#people.values()]; }
	get(id) { return this.#people.get(id); }

	replace(people) {
		this.#people = new Map(people.map(person => [person.id, person]));
		this.render();
	}

	update(person) {
		this.#people.set(person.id, person);
		this.render();
	}

	delete(id) {
		this.#people.delete(id);
		this.render();
	}

	/** Exactly the people with these ids are heard now. */
	speaking(ids) {
		for (const person of this.all) person.speaking = ids.includes(person.id);
		this.render();
	}

	render() {
		const rows = new Map([...this.list.children].map(row => [row.dataset.id, row]));
		this.all.forEach((person, i) => {
			const {id, name, kind, muted, video_muted: dark, hand, volume, speaking} = person;
			const key = JSON.stringify([name, kind, muted, dark, hand, this.withVolume && volume, this.moderates(), document.documentElement.lang]);
			let row = rows.get(id);
			rows.delete(id);
			if (row?.dataset.key !== key) {
				const focused = row?.contains(document.activeElement) && document.activeElement.dataset.does;
				const fresh = this.#row(person);
				fresh.dataset.key = key;
				row?.replaceWith(fresh);
				row = fresh;
				if (focused) row.querySelector(`[data-does=${focused}]`)?.focus();
			}
			row.classList.toggle("speaking", speaking);
			row.querySelector(".state").textContent = speaking ? `, ${t("speaking")}` : "";
			if (this.list.children[i] !== row) this.list.insertBefore(row, this.list.children[i] ?? null);
		});
		for (const row of rows.values()) row.remove();
	}

	#row(person) {
		const {id, name, kind, hand, muted, video_muted: dark} = person;
		const mine = id === this.me();
		const facts = Object.entries({phone: kind === "phone", hand, "mic-off": muted, "camera-off": dark}).filter(([, is]) => is);
		return h("li", {"data-id": id},
			h("span.face", {"aria-hidden": "true"}, initials(name)),
			h("span.grow", name, mine && ` (${t("you")})`, h("span.sr.state")),
			facts.map(([glyph]) => h("span", {title: t(`is_${glyph}`)}, icon(glyph), unseen(t(`is_${glyph}`)))),
			this.moderates() && !mine && this.#actions(person));
	}

	#actions({id, name, muted, volume}) {
		const action = (does, glyph, work, more) => button({
			class: "quiet", label: t(does, {name}), "data-does": does, onclick: () => attempt(work), ...more,
		}, icon(glyph));
		return h("span.row",
			this.withVolume && h("input", {
				type: "range", min: 0, max: 2, step: 0.1, value: volume, label: t("volume", {name}), "data-does": "volume",
				onchange: ({target}) => attempt(() => this.change(id, {volume: target.valueAsNumber})),
			}),
			action("mute_who", muted ? "mic-off" : "mic", () => this.change(id, {muted: !muted}), {"aria-pressed": String(muted)}),
			action("rename_who", "edit", async () => {
				const chosen = await ask(t("rename_who", {name}), t("apply"), name);
				if (chosen) await this.change(id, {name: chosen});
			}),
			action("remove_who", "close", async () => {
				if (await ask(`${t("remove_who", {name})}?`, t("remove"))) await this.remove(id);
			}));
	}
}
