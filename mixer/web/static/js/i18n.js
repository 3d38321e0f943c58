// Words: words.tsv has a line a text, a column a language. Switching needs no reload, which would drop the call.

const KEY = "mosaique.language";
const listeners = [];
let words = {};
let language = "en";
export let locale = "en"; // with the region, which tells how dates are written

/** The text for `key`, `{name}` placeholders filled from `values`. */
export const t = (key, values = {}) => (words[key]?.[language] ?? key).replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "");

export function label(element, text) {
	element.setAttribute("aria-label", text);
	element[element.tagName === "IMG" ? "alt" : "title"] = text;
}

/** Call `listener` now and whenever the language changes. */
export function onLanguage(listener) {
	listeners.push(listener);
	listener();
}

export const number = (value, digits = 0, unit = {}) =>
	new Intl.NumberFormat(locale, {minimumFractionDigits: digits, maximumFractionDigits: digits, ...unit}).format(value);

export const when = time =>
	(time ? new Intl.DateTimeFormat(locale, {dateStyle: "medium", timeStyle: "short"}).format(new Date(time)) : "–");

/** Seconds as 1:02:03. */
export const clock = seconds => new Date(1000 * (seconds || 0)).toISOString().slice(11, 19).replace(/^(00:0?|0)/, "");

export const megabytes = bytes => number(bytes / 1e6, 1, {style: "unit", unit: "megabyte"});

/** Storage may be forbidden (private windows, policies); the pages work without. */
export function memory(store) {
	return {
		get: key => { try { return window[store].getItem(key); } catch { return null; } },
		set: (key, value) => {
			try { value == null ? window[store].removeItem(key) : window[store].setItem(key, value); } catch {/* this page only */}
		},
	};
}
export const local = memory("localStorage");
export const tab = memory("sessionStorage");

function speak(code) {
	language = document.documentElement.lang = code;
	locale = navigator.languages.find(tag => tag.startsWith(code)) ?? code;
	for (const element of document.querySelectorAll("[data-t]")) element.textContent = t(element.dataset.t);
	for (const element of document.querySelectorAll("[data-t-label]")) label(element, t(element.dataset.tLabel));
	for (const element of document.querySelectorAll("[data-t-hint]")) element.placeholder = t(element.dataset.tHint);
	for (const select of document.querySelectorAll("select.language")) select.value = code;
	for (const listener of listeners) listener();
}

/** Resolves once the page speaks the reader's language. */
export const ready = (async () => {
	// A page with much to say of its own has a second table, so that the others stay small.
	const own = document.documentElement.dataset?.words;
	const texts = ["/static/words.tsv", ...(own ? [`/static/${own}.tsv`] : [])].map(async file => (await fetch(file)).text());
	const [[, ...codes], [, ...names], ...lines] = (await Promise.all(texts)).join("").trim().split("\n").map(line => line.split("\t"));
	words = Object.fromEntries(lines.map(([key, ...texts]) => [key, Object.fromEntries(texts.map((text, i) => [codes[i], text]))]));
	for (const select of document.querySelectorAll("select.language")) {
		codes.forEach((code, i) => select.append(Object.assign(new Option(names[i], code), {lang: code})));
		select.addEventListener("change", () => {
			local.set(KEY, select.value);
			speak(select.value);
		});
	}
	const wished = [local.get(KEY), ...navigator.languages].map(tag => tag?.slice(0, 2).toLowerCase());
	speak(wished.find(code => codes.includes(code)) ?? "en");
})();
