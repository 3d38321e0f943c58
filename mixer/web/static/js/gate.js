// The admin and archive pages ask for a token once a tab; a 401 asks again.
import {$, attempt, explain, on} from "./dom.js";
import {Api, takeToken} from "./api.js";
import {tab} from "./i18n.js";

const KEY = "mosaique.admin";

/** Calls `open(api)` once a token is known to open `probe` (a path). */
export function gate(probe, open) {
	const wait = () => {
		$("gate").hidden = false;
		$("token").focus();
	};
	const enter = async token => {
		try {
			const api = new Api(token);
			await api.get(probe);
			tab.set(KEY, token);
			$("gate").hidden = true;
			$("inside").hidden = false;
			await attempt(() => open(api));
		} catch (error) {
			$("problem").textContent = explain(error);
			wait();
		}
	};
	on("gate", () => enter($("token").value.trim()), "submit");
	on("forget", () => {
		tab.set(KEY, null);
		location.assign(location.pathname);
	});
	const known = takeToken(KEY);
	if (known) enter(known);
	else wait();
}

/** The part of the address after `#name=`, followed as it changes. */
export function route(name, show) {
	const go = () => show(new URLSearchParams(location.hash.slice(1)).get(name));
	addEventListener("hashchange", go);
	go();
}
