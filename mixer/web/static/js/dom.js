// The few things every page does to its document.
import {label, t} from "./i18n.js";

export const $ = id => document.getElementById(id);

/** h("p.soft.small", {onclick}, "text", child): an element. Attributes may be missing; what is false or null is left out. */
export function h(tag, ...children) {
	const [type, ...classes] = tag.split(".");
	const element = document.createElement(type);
	const attributes = children[0]?.constructor === Object ? children.shift() : {};
	element.classList.add(...classes);
	for (const [name, value] of Object.entries(attributes)) {
		if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
		else if (name === "label") label(element, value);
		else if (value !== false && value != null) element.setAttribute(name, value === true ? "" : value);
	}
	element.append(...children.flat().filter(child => child != null && child !== false));
	return element;
}

export function svg(tag, attributes, ...children) {
	const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
	for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
	element.append(...children);
	return element;
}

export const icon = name => svg("svg", {class: "icon", viewBox: "0 0 24 24", "aria-hidden": "true"}, svg("use", {href: `/static/icons.svg#${name}`}));

export const button = (attributes, ...children) => h("button", {type: "button", ...attributes}, ...children);

/** Text for screen readers only. */
export const unseen = text => h("span.sr", text);

/** Show and speak a sentence: politely, or at once when `urgent`. */
export function say(text, urgent = false) {
	const toast = h("p.toast", {role: urgent && "alert"}, text);
	$("toasts").append(toast);
	if ($("toasts").children.length > 3) $("toasts").firstChild.remove();
	setTimeout(() => toast.remove(), 7000);
}

/** What went wrong, in words: the server's own sentence when there is one. */
export const explain = error => (error instanceof TypeError ? t("offline") : error.message);

/** Run `work`; a failure is said aloud. */
export async function attempt(work) {
	try { return await work(); } catch (error) { say(explain(error), true); }
}

/** Say on each click or other event of the element what `work` throws. */
export const on = (id, work, type = "click") => $(id).addEventListener(type, event => {
	if (type === "submit") event.preventDefault();
	attempt(() => work(event));
});

/** A modal question. Resolves to whether the answer is yes; with `value`, to the typed text, "" if none. */
export function ask(question, action, value, maxlength = 80) {
	const input = value !== undefined && h("input", {value, maxlength, "aria-label": question});
	const dialog = h("dialog", {"aria-label": question}, h("form", {method: "dialog", class: "stack"},
		h("h2", question), input, h("div", {class: "row"},
			h("button", {class: input ? "primary" : "danger", value: "yes"}, action),
			button({onclick: () => dialog.close()}, t("cancel")))));
	document.body.append(dialog);
	dialog.showModal();
	return new Promise(resolve => dialog.addEventListener("close", () => {
		dialog.remove();
		const yes = dialog.returnValue === "yes";
		resolve(input ? (yes ? input.value.trim() : "") : yes);
	}));
}
