// What the page does: which agents, settings and axes are shown, sorting, and following a run.

let data = JSON.parse(document.getElementById("data").textContent);
const state = { on: new Set(), known: new Set(), log: false, same: true, setting: [], map: [] };

/** An HTML element with properties, attributes (those with a dash) and children. */
function make(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-") || name === "role") made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...children);
  return made;
}

/** A labelled list of choices; calls `choose` with the value that is chosen. */
function choice(label, options, value, choose) {
  const list = make("select", {}, ...options.map(([key, text]) => make("option", { value: key, textContent: text })));
  list.value = value;
  list.setAttribute("aria-label", label);
  list.addEventListener("change", () => choose(list.value));
  return make("label", {}, `${label} `, list);
}

/** A labelled box to tick; calls `choose` with whether it is ticked. */
function box(label, checked, choose) {
  const tick = make("input", { type: "checkbox", checked });
  tick.addEventListener("change", () => choose(tick.checked));
  return make("label", {}, tick, ...label);
}

/** A piece of an agent's line, as wide as a word. */
function swatch({ color, dash, width }) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
  const set = (one, attributes) => Object.entries(attributes).forEach(([name, value]) => one.setAttribute(name, value));
  set(line, { x1: 1, x2: 33, y1: 6, y2: 6, stroke: color, "stroke-width": width, "stroke-dasharray": dash.join() });
  set(svg, { width: 34, height: 12, "aria-hidden": "true" });
  svg.append(line);
  return svg;
}

const settingOf = (number) => data.sources[number].settings[state.setting[number]];
const titleWithin = (number) => {
  const { title, status } = settingOf(number);
  return status === "finished" ? title : `${title} (${status})`;
};
const titleOf = (number) => [data.sources[number].name, titleWithin(number)].filter(Boolean).join(": ");

/** The curves of a kind of a source that are switched on, the trained policy last, so that it lies on top. */
function linesOf(number, kind) {
  const found = settingOf(number)[kind];
  if (!found) return [];
  const names = data.sources[number].agents.filter((name) => state.on.has(name) && found.curves[name]);
  return names.reverse().map((name) => lineOf(data.agents[name], found.at, found.curves[name]));
}

const lineOf = (look, at, [mean, low, high]) => ({ ...look, at, mean, low, high });

/** Each agent minus the reference: what is stored the other way round changes its sign. */
function differencesOf(number) {
  const found = settingOf(number).difference;
  if (!found) return [];
  const minus = (values) => values?.map((value) => (value === null ? null : -value));
  const names = data.sources[number].agents.filter((name) => state.on.has(name) && name !== state.reference);
  return names.reverse().flatMap((name) => {
    const straight = found.curves[`${name}|${state.reference}`];
    const turned = found.curves[`${state.reference}|${name}`];
    if (!straight && !turned) return [];
    const [mean, low, high] = straight ?? [minus(turned[0]), minus(turned[2]), minus(turned[1])];
    return [lineOf(data.agents[name], found.at, [mean, low, high])];
  });
}

/** The curves of training, with the level of the reference agent after it. */
function trainingOf(number) {
  const found = settingOf(number).training ?? {};
  const lines = Object.entries(found).map(([name, { at, curves }]) => lineOf(data.lines[name], at, curves[name]));
  const { reference } = data.sources[number];
  const level = settingOf(number).level?.[reference];
  if (lines.length && level !== undefined && level !== null) {
    const { at } = lines[0];
    lines.push({ ...data.agents[reference], at, mean: at.map(() => level) });
  }
  return lines;
}

const CHARTS = {
  regret: {
    lines: (n) => linesOf(n, "regret"), x: "round", y: (n) => `cumulative ${data.sources[n].regret}`, log: true,
  },
  difference: {
    lines: differencesOf, x: "round", y: () => `minus ${data.agents[state.reference]?.label}`, zeroLine: true,
  },
  training: { lines: trainingOf, x: "iteration", y: () => "regret at the horizon", legend: true },
  suff_fail: { lines: (n) => linesOf(n, "suff_fail"), x: "round", y: () => "SuffFailFreq(t)", domain: [0, 1] },
};

/** A place for one chart of a source, made once. */
function placeOf(panels, number, name, reads) {
  const id = `${panels.dataset.chart}-${number}-${name}`;
  const there = document.getElementById(id);
  if (there) return there;
  const chart = make("div", { className: "chart" });
  const place = make("figure", { id }, make("figcaption", { tabIndex: -1 }), make("ul", { className: "legend" }), chart,
    make("ul", { className: "reading" }));
  if (reads) {
    chart.tabIndex = 0;
    chart.setAttribute("role", "group");
    place.querySelector(".reading").setAttribute("aria-live", "polite");
    readable(place);
  } else chart.setAttribute("role", "img");
  const group = panels.querySelector(`[data-source="${number}"]`) ?? panels.appendChild(make("div", {}));
  group.dataset.source = number;
  group.append(place);
  return place;
}

/** Draws curves in a place, or says that there are none. */
function show(place, title, lines, options, legend = false) {
  place.lines = [...lines].reverse();
  place.along = options.x;
  place.querySelector("figcaption").textContent = title;
  place.forget();
  const entries = legend ? lines.map((line) => make("li", {}, swatch(line), ` ${line.label}`)) : [];
  place.querySelector(".legend").replaceChildren(...entries);
  if (!lines.some((line) => line.mean.some((value) => value !== null))) {
    place.drawn?.finalize();
    place.drawn = null;
    place.querySelector(".chart").replaceChildren(make("p", { textContent: "Nothing to show here." }));
    return;
  }
  const ends = lines.map((line) => `${line.label} ${estimate(line.mean.at(-1), line.low?.at(-1), line.high?.at(-1))}`);
  const description = `${title}. At the end: ${ends.reverse().join("; ")}. The arrow keys read the curves.`;
  draw(place, curvesSpec(lines, options), description);
}

/** Draws the charts of one section, on the same vertical axis where that is asked for. */
function drawSection(panels) {
  const kind = panels.dataset.chart;
  const numbers = data.sources.map((_, number) => number).filter((n) => data.sources[n].settings.some((s) => s[kind]));
  if (kind === "arms") return drawArms(panels, numbers);
  const { lines, x, y, legend, domain: fixed, ...chart } = CHARTS[kind];
  const log = Boolean(chart.log && state.log);
  const found = numbers.map((number) => lines(number));
  const shared = state.same ? limits(found.flat(), log) : null;
  numbers.forEach((number, i) => {
    const options = { ...chart, x, y: y(number), log, domain: fixed ?? shared };
    show(placeOf(panels, number, "curves", true), titleOf(number), found[i], options, legend);
    const entropy = kind === "training" && settingOf(number).entropy;
    if (entropy) {
      const line = lineOf(data.lines.entropy, entropy.at, entropy.curves.entropy);
      const place = placeOf(panels, number, "entropy", true);
      show(place, `${titleOf(number)}: entropy of play`, [line], { x, y: "entropy (nats)", height: 120 });
    }
  });
}

/** Shares by rank of one agent, which a list chooses. */
function drawArms(panels, numbers) {
  for (const number of numbers) {
    const arms = settingOf(number).arms ?? {};
    const names = Object.keys(arms).filter((name) => arms[name]);
    if (!names.includes(state.arm)) state.arm = names[0] ?? state.arm;
    const place = placeOf(panels, number, "shares", false);
    place.querySelector("figcaption").textContent = titleOf(number);
    const pick = (name) => { state.arm = name; drawSection(panels); };
    const options = names.map((name) => [name, data.agents[name].label]);
    keepFocus(place.querySelector(".legend"), [make("li", {}, choice("agent", options, state.arm, pick))]);
    if (!arms[state.arm]) continue;
    const best = arms[state.arm].shares[0].at(-1);
    const whose = `${titleOf(number)}, ${data.agents[state.arm].label}`;
    draw(place, sharesSpec(arms[state.arm], data.ramp), `${whose}: share of the best arm at the end ${words(best)}`);
  }
}

/** Replaces controls by newer ones; what had the focus has it after. */
function keepFocus(place, children) {
  const controls = (within) => [...within.querySelectorAll("select, input, button")];
  const index = controls(place).indexOf(document.activeElement);
  place.replaceChildren(...children);
  if (index >= 0) controls(place)[index]?.focus();
}

function drawAll(kinds = null) {
  for (const panels of document.querySelectorAll("[data-chart]")) {
    if (!kinds || kinds.includes(panels.dataset.chart)) drawSection(panels);
  }
}

/** The controls that all sections share: agents, axes, the reference. */
function drawControls() {
  const form = document.getElementById("controls");
  if (!form) return;
  form.addEventListener("submit", (event) => event.preventDefault());
  const changed = () => {
    drawAll(["regret", "difference", "suff_fail"]);
    filterTables();
  };
  const boxes = Object.entries(data.agents).map(([name, look]) => {
    const turn = (on) => {
      if (on) state.on.add(name); else state.on.delete(name);
      changed();
    };
    return box([swatch(look), ` ${look.label}`], state.on.has(name), turn);
  });
  const all = (on) => () => {
    state.on = new Set(on ? Object.keys(data.agents) : []);
    drawControls();
    changed();
  };
  const button = (text, on) => make("button", { type: "button", textContent: text, onclick: all(on) });
  const agents = make("fieldset", {}, make("legend", { textContent: "Agents" }), ...boxes, button("all", true),
    button("none", false));
  const names = Object.entries(data.agents).map(([name, { label }]) => [name, label]);
  const axes = make("fieldset", {}, make("legend", { textContent: "Axes" }),
    box(["logarithmic axes of regret"], state.log, (on) => { state.log = on; drawAll(["regret"]); }),
    box(["one vertical axis for all panels"], state.same, (on) => { state.same = on; drawAll(); }),
    choice("reference of differences", names, state.reference, (name) => {
      state.reference = name;
      drawAll(["difference"]);
    }),
    box(["tables: only agents that are on"], state.only, (on) => { state.only = on; filterTables(); }));
  keepFocus(form, [make("details", { open: form.querySelector("details")?.open ?? true },
    make("summary", { textContent: "Agents and axes" }), agents, axes)]);
}

function filterTables() {
  for (const row of document.querySelectorAll("tr[data-agent]")) {
    row.hidden = Boolean(state.only) && !state.on.has(row.dataset.agent);
  }
}

/** Makes the headings of tables buttons that sort: up, and then down. */
function makeSortable(table) {
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    head.setAttribute("aria-sort", "none");
    const button = make("button", { type: "button", textContent: head.textContent });
    button.addEventListener("click", () => sort(table, column, head.getAttribute("aria-sort") === "ascending"));
    head.replaceChildren(button);
  });
}

function sort(table, column, down) {
  const key = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
  const unknown = (text) => text === "" || text === "nan";
  const compare = (a, b) => {
    const [first, second] = [key(a), key(b)];
    if (unknown(first) || unknown(second)) return Number(unknown(first)) - Number(unknown(second)); // Last, both ways.
    const difference = Number(first) - Number(second);
    const order = Number.isNaN(difference) ? first.localeCompare(second) : difference;
    return down ? -order : order;
  };
  table.tBodies[0].append(...[...table.tBodies[0].rows].sort(compare));
  const order = down ? "descending" : "ascending";
  [...table.tHead.rows[0].cells].forEach((head, i) => head.setAttribute("aria-sort", i === column ? order : "none"));
}

/** Puts the page together from `data`; what was chosen before stays chosen. */
function start() {
  for (const [name, { on }] of Object.entries(data.agents)) {
    if (!state.known.has(name) && on) state.on.add(name);
    state.known.add(name);
  }
  const references = data.sources.map((source) => source.reference).filter((name) => name in data.agents);
  state.reference = state.reference in data.agents ? state.reference : references[0] ?? Object.keys(data.agents)[0];
  data.sources.forEach((source, number) => {
    if (!(state.setting[number] < source.settings.length)) {
      const finished = source.settings.findLastIndex((setting) => setting.regret);
      state.setting[number] = Math.max(finished, 0);
    }
    const open = source.dims.map((dim, i) => i).filter((i) => source.dims[i].values.length > 1);
    const [rows, columns] = open.length > 1 ? [open[1], open[0]] : [null, open[0] ?? 0];
    const fixed = source.dims.map((dim) => dim.values.length - 1);
    if (state.map[number]?.fixed.length !== fixed.length) { // Also where a sweep has grown by a dimension.
      state.map[number] = { rows, columns, fixed, agent: source.agents[0], minus: "" };
    }
  });
  const maps = document.querySelector(".maps");
  data.sources.forEach((source, number) => {
    if (source.dims.length) drawMap(maps.appendChild(make("div", { id: `map-${number}` })), number);
  });
  document.querySelectorAll("table.sortable").forEach(makeSortable);
  drawControls();
  drawAll();
}

/** Asks the server of `rmft report --watch` for a newer page, and shows it in place of this one. */
async function follow() {
  const told = document.getElementById("following");
  try {
    const newest = await fetch("version");
    if (told.textContent === "") told.textContent = "This page follows its files.";
    if (newest.ok && (await newest.text()) !== data.watch) {
      const page = new DOMParser().parseFromString(await (await fetch("./")).text(), "text/html");
      data = JSON.parse(page.getElementById("data").textContent);
      document.querySelector("main").replaceWith(document.adoptNode(page.querySelector("main")));
      document.querySelector("nav").replaceWith(document.adoptNode(page.querySelector("nav")));
      start();
      told.textContent = `This page follows its files; last change seen at ${new Date().toLocaleTimeString()}.`;
    }
  } catch {
    told.textContent = "The server does not answer; what is shown is what it sent last.";
  }
  setTimeout(follow, 2000);
}

start();
if (data.watch) follow();
