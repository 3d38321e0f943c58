// The layout editor: a form over the contract's layout body, regions drawn on the live preview.
import { number, t, when } from "./i18n.js";
import { $, attempt, button, explain, h, say, svg, unseen } from "./dom.js";
import { PRESETS } from "./api.js";
import { fraction, parse, value } from "./rational.js";

const STEPS = 12; // the drawing grid: halves, thirds, quarters and sixths; finer fractions are typed
const PREVIEW_MS = 2000;
const SETTLE_MS = 300;
const EDGES = ["x", "y", "width", "height"];
const snap = (cells, low, high) => Math.min(high, Math.max(low, Math.round(cells)));

export class Editor {
  body = null;
  #active = -1;
  #drag = null;
  #busy = false;

  constructor(api, path, people) {
    Object.assign(this, { api, path, people });
    this.signal = new AbortController();
    const on = (id, type, work) => $(id).addEventListener(type, work, { signal: this.signal.signal });
    on("layout", "input", () => this.#read());
    on("layout", "submit", (event) => { event.preventDefault(); attempt(() => this.#apply()); });
    on("revert", "click", () => attempt(() => this.load()));
    on("add-region", "click", () => this.#add({ x: "0", y: "0", width: "1/2", height: "1/2" }));
    on("board", "pointerdown", (event) => this.#grab(event));
    on("board", "pointermove", (event) => this.#move(event));
    on("board", "pointerup", () => { this.#drag = null; this.#fields(); });
    this.timer = setInterval(() => !document.hidden && this.#preview(), PREVIEW_MS);
  }

  stop() {
    clearInterval(this.timer);
    clearTimeout(this.settle);
    this.signal.abort();
  }

  async load() {
    const { version, ...body } = await this.api.get(`${this.path}/layout`);
    this.body = body;
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
    if (!this.body) return;
    $("presets").replaceChildren(...PRESETS.map((name) => h("label", { class: "check choice" },
      h("input", { type: "radio", name: "preset", value: name, checked: name === this.body.preset }), t(`preset_${name}`))));
    $("pins").replaceChildren(...this.people.all.map(({ id, name }) => h("label", { class: "field" }, name,
      h("input", { type: "number", min: 1, max: 25, "data-pin": id, value: id in this.body.pins && this.body.pins[id] + 1 }))));
    this.#fields();
    this.#changed();
  }

  #read() {
    const preset = document.querySelector("[name=preset]:checked")?.value;
    const pins = [...document.querySelectorAll("[data-pin]")].filter((input) => input.value);
    Object.assign(this.body, {
      preset, fit: $("fit").value, names: $("names").checked, speaker_border: $("border").checked,
      max_tiles: $("max-tiles").valueAsNumber,
      canvas: { ...this.body.canvas, background: $("background").value },
      pins: Object.fromEntries(pins.map((input) => [input.dataset.pin, input.valueAsNumber - 1])),
    });
    if (preset === "custom" && !this.body.regions.length) this.#add({ x: "0", y: "0", width: "1", height: "1" });
    this.#changed();
  }

  #changed() {
    $("custom").hidden = this.body.preset !== "custom";
    this.#draw();
    clearTimeout(this.settle);
    this.settle = setTimeout(() => this.#preview(true), SETTLE_MS);
  }

  async #preview(cost = false) {
    if (this.#busy || !this.body) return;
    this.#busy = true;
    const send = (accept) => this.api.send("POST", `${this.path}/layout/preview`, { body: this.body, headers: { Accept: accept } });
    try {
      if (cost) {
        const answer = await (await send("application/json")).json();
        $("cost").textContent = t("cost", { cores: number(answer.cost.cpu_cores, 2), kbps: number(answer.cost.kbps), n: answer.tiles.length });
      }
      const old = $("preview").src;
      $("preview").src = URL.createObjectURL(await (await send("image/png")).blob());
      URL.revokeObjectURL(old);
      $("layout-errors").replaceChildren();
    } catch (error) {
      const faults = error.errors?.length ? error.errors : [{ loc: [], msg: explain(error) }];
      $("layout-errors").replaceChildren(...faults.map(({ loc, msg }) => h("li", {}, `${loc.join(" › ")} ${msg}`)));
    } finally { this.#busy = false; }
  }

  async #apply() {
    const { version } = await this.api.call("PUT", `${this.path}/layout`, this.body);
    say(t("applied", { version }));
    await this.#versions(version);
  }

  async #versions(current) {
    const versions = await this.api.get(`${this.path}/layout/versions`);
    $("versions").replaceChildren(...versions.slice(0, 10).map(({ version, at, by, layout }) => h("li", {},
      h("span", { class: "grow" }, `${version}. ${t(`preset_${layout.preset}`)}`, h("span", { class: "soft small" }, ` ${when(at)}, ${by}`)),
      version === current ? h("span", { class: "badge good" }, t("in_force")) : button({ onclick: () => attempt(async () => {
        await this.api.call("POST", `${this.path}/layout/rollback`, { version });
        await this.load();
      }) }, t("go_back"), unseen(` ${version}`)))));
  }

  // --- regions

  #add(edges) {
    const { regions } = this.body;
    const used = new Set(regions.map(({ id }) => id));
    let n = 1;
    while (used.has(`r${n}`)) n++;
    regions.push({ id: `r${n}`, ...edges, z: regions.length, source: regions.length ? "any" : "speaker", fit: null });
    this.#active = regions.length - 1;
    this.#fields();
    this.#changed();
  }

  #fields() {
    const { regions } = this.body;
    $("sources").replaceChildren(...["speaker", "presentation", "any", ...this.people.all.map(({ id }) => `participant:${id}`)].map((source) => h("option", { value: source })));
    const input = (i, name, attributes) => h("label", { class: "field" }, t(name), h("input", {
      value: regions[i][name], ...attributes, onfocus: () => { this.#active = i; this.#draw(); },
      oninput: ({ target }) => {
        target.setAttribute("aria-invalid", String(EDGES.includes(name) && !parse(target.value)));
        regions[i][name] = name === "z" ? target.valueAsNumber || 0 : target.value;
      },
    }));
    $("regions").replaceChildren(...regions.map((region, i) => h("fieldset", { class: "region stack" },
      h("legend", { class: "sr" }, region.id),
      h("div", { class: "fields" }, input(i, "id"), EDGES.map((name) => input(i, name, {})),
        input(i, "z", { type: "number" }), input(i, "source", { list: "sources" }),
        h("label", { class: "field" }, t("fit"), h("select", { onchange: ({ target }) => { region.fit = target.value || null; this.#changed(); } },
          ["", "cover", "contain"].map((fit) => h("option", { value: fit, selected: fit === (region.fit ?? "") }, t(fit ? `fit_${fit}` : "fit_layout"))))),
        button({ onclick: () => { regions.splice(i, 1); this.#fields(); this.#changed(); } }, t("remove"), unseen(` ${region.id}`))))));
  }

  #draw() {
    const { canvas: { width, height }, regions, preset } = this.body;
    const board = $("board");
    board.toggleAttribute("hidden", preset !== "custom");
    board.setAttribute("viewBox", `0 0 ${width} ${height}`);
    const lines = [...Array(STEPS - 1).keys()].flatMap((i) => [
      svg("line", { class: "grid", x1: ((i + 1) * width) / STEPS, x2: ((i + 1) * width) / STEPS, y2: height }),
      svg("line", { class: "grid", y1: ((i + 1) * height) / STEPS, y2: ((i + 1) * height) / STEPS, x2: width }),
    ]);
    board.replaceChildren(...lines, ...regions.map((region, i) => {
      const [x, y, w, high] = EDGES.map((name, axis) => (value(region[name]) || 0) * (axis % 2 ? height : width));
      return svg("g", { class: `region${i === this.#active ? " active" : ""}`, "data-i": i },
        svg("rect", { x, y, width: w, height: high }), svg("text", { x: x + 14, y: y + 38 }, region.id),
        svg("path", { class: "corner", d: `M${x + w} ${y + high}v-48l-48 48z` }));
    }));
  }

  #cell({ clientX, clientY }) {
    const box = $("board").getBoundingClientRect();
    return [((clientX - box.left) / box.width) * STEPS, ((clientY - box.top) / box.height) * STEPS];
  }

  #grab(event) {
    const [x, y] = this.#cell(event);
    const group = event.target.closest(".region");
    if (!group) this.#add({ x: fraction(snap(x - 0.5, 0, STEPS - 1), STEPS), y: fraction(snap(y - 0.5, 0, STEPS - 1), STEPS), width: "1/12", height: "1/12" });
    else this.#active = Number(group.dataset.i);
    const region = this.body.regions[this.#active];
    const sizing = !group || event.target.classList.contains("corner");
    this.#drag = { region, sizing, from: [x, y], start: EDGES.map((name) => value(region[name]) * STEPS) };
    $("board").setPointerCapture(event.pointerId);
    this.#draw();
  }

  #move(event) {
    if (!this.#drag) return;
    const { region, sizing, from, start } = this.#drag;
    this.#cell(event).forEach((cell, axis) => {
      const by = cell - from[axis];
      const [origin, length] = [start[axis], start[axis + 2]];
      if (sizing) region[EDGES[axis + 2]] = fraction(snap(length + by, 1, STEPS - Math.ceil(origin)), STEPS);
      else region[EDGES[axis]] = fraction(snap(origin + by, 0, STEPS - Math.ceil(length)), STEPS);
    });
    this.#changed();
  }
}
