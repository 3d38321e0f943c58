// The first page: enter a room by name, or make one with a name nobody has.
import {onLanguage, ready, t} from "./i18n.js";
import {$, on} from "./dom.js";

/** A name that can be said on the telephone and not be guessed (36 bits): "kalo-mita-rune". */
const sayable = () => [...crypto.getRandomValues(new Uint8Array(12))]
	.map((byte, i) => (i % 2 ? "aeiou"[byte % 5] : "bdfgklmnprstvz"[byte % 14])).join("").replace(/.{4}(?=.)/g, "$&-");

/** What a person typed, as the contract's room name; a pasted link gives its room. */
function roomName(text) {
	const link = /\/r\/([^#?/]+)/.exec(text);
	const plain = (link ? link[1] : text).normalize("NFD").replace(/[\u0300-\u036f]/g, "").toLowerCase();
	return plain.replace(/[^a-z0-9]+/g, "-").replace(/^-+|-+$/g, "").slice(0, 63);
}

on("enter", () => {
	const typed = $("room").value.trim();
	const name = roomName(typed);
	$("problem").textContent = name ? "" : t("room_name_bad");
	$("room").setAttribute("aria-invalid", String(!name));
	if (!name) return $("room").focus();
	const token = /#token=([\w.-]+)/.exec(typed);
	location.href = `/r/${name}${token?.[0] ?? ""}`;
}, "submit");
on("make", () => { location.href = `/r/${sayable()}`; });
await ready;
onLanguage(() => { document.title = `Mosaique – ${t("tagline")}`; });
