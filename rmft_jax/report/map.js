// The map of a sweep: regret at the horizon over two dimensions, whose cells open their curves.

/** The map of a sweep: two dimensions along its axes, the others at one value each. */
function drawMap(place, number) {
  const source = data.sources[number];
  const map = state.map[number];
  const { dims } = source;
  const sizes = dims.map((dim) => dim.values.length);
  const at = (row, column) => {
    const index = map.fixed.map((value, i) => (i === map.columns ? column : i === map.rows ? row : value));
    return index.reduce((total, value, i) => total * sizes[i] + value, 0);
  };
  const columns = dims[map.columns].values.map((_, i) => i);
  const rows = map.rows === null ? [0] : dims[map.rows].values.map((_, i) => i);
  const cells = rows.map((row) => columns.map((column) => at(row, column)));
  const known = cells.map((line) => line.map((index) => valueOf(source, index, map)));
  const values = known.flat();
  const finite = values.map((value) => value?.[0]).filter((value) => value !== null && value !== undefined);
  const [low, high] = [Math.min(...finite), Math.max(...finite)];
  const far = Math.max(Math.abs(low), Math.abs(high)) || 1;
  const share = (value) => (map.minus ? (value + far) / (2 * far) : high > low ? (value - low) / (high - low) : 0.5);
  const ramp = map.minus ? data.diverging : data.ramp;
  const cell = (row, column) => {
    const index = cells[row][column];
    const { title, status } = source.settings[index];
    const value = known[row][column];
    const partial = value && status !== "finished";
    const text = value ? words(value[0]) + (partial ? "*" : "") : status === "finished" ? "–" : status;
    const name = `${title}: ${value ? estimate(...value) : text}${partial ? ` (${status})` : ""}`;
    const open = make("button", { type: "button", textContent: text, title: name, "aria-label": name,
      "aria-pressed": String(state.setting[number] === index), tabIndex: state.setting[number] === index ? 0 : -1 });
    open.addEventListener("click", () => openSetting(number, index));
    if (value) {
      open.style.background = ramp[Math.round(share(value[0]) * (ramp.length - 1))];
      open.style.color = isDark(open.style.background) ? "#fff" : "#000";
    } else open.className = "none";
    return make("td", {}, open);
  };
  const head = columns.map((column) => make("th", { scope: "col", textContent: dims[map.columns].values[column] }));
  const corner = `${map.rows === null ? "" : `${dims[map.rows].label} ↓ `}${dims[map.columns].label} →`;
  const body = rows.map((row) => make("tr", {},
    make("th", { scope: "row", textContent: map.rows === null ? "" : dims[map.rows].values[row] }),
    ...columns.map((column) => cell(row, column))));
  const lost = cells.flat().some((index, i) => values[i] && source.settings[index].status !== "finished");
  const told = `${source.name}: ${source.regret}${map.minus ? ", difference" : ""}; shown: ${titleWithin(number)}`
    + `${lost ? "; * mean over the seeds that finished" : ""}`;
  const table = make("table", { className: "map" }, make("caption", { textContent: told }),
    make("thead", {}, make("tr", {}, make("th", { scope: "col", textContent: corner }), ...head)),
    make("tbody", {}, ...body));
  if (!table.querySelector('button[tabindex="0"]')) table.querySelector("button").tabIndex = 0;
  table.addEventListener("keydown", walk);
  const focused = place.contains(document.activeElement) && document.activeElement.closest(".map");
  keepFocus(place, [make("div", { className: "choices" }, ...mapChoices(place, number)),
    make("div", { className: "scroll" }, table)]);
  if (focused) place.querySelector('[aria-pressed="true"]')?.focus();
}

/** Regret at the horizon of the agent of a map, or its difference to another one. */
function valueOf(source, index, map) {
  const setting = source.settings[index];
  const last = (curve) => curve && curve.map((side) => side.at(-1));
  if (!map.minus) return last(setting.regret?.curves[map.agent]) ?? null;
  const straight = last(setting.difference?.curves[`${map.agent}|${map.minus}`]);
  const turned = last(setting.difference?.curves[`${map.minus}|${map.agent}`]);
  const minus = (value) => (value === null || value === undefined ? value : -value);
  return straight ?? (turned ? [minus(turned[0]), minus(turned[2]), minus(turned[1])] : null);
}

/** The lists that choose the axes of a map, the values of other dimensions, and the agent. */
function mapChoices(place, number) {
  const source = data.sources[number];
  const map = state.map[number];
  const redraw = () => drawMap(place, number);
  const open = source.dims.map((dim, i) => [String(i), dim.label]);
  const axis = (name, other) => (value) => {
    if (map[other] === Number(value)) map[other] = map[name];
    map[name] = Number(value);
    redraw();
  };
  const axes = map.rows === null ? [] : [choice("down", open, String(map.rows), axis("rows", "columns")),
    choice("across", open, String(map.columns), axis("columns", "rows"))];
  const others = source.dims.map((dim, i) => [dim, i])
    .filter(([dim, i]) => i !== map.rows && i !== map.columns && dim.values.length > 1);
  const fixed = others.map(([dim, i]) => choice(dim.label, dim.values.map((value, at) => [String(at), value]),
    String(map.fixed[i]), (value) => { map.fixed[i] = Number(value); redraw(); }));
  const agents = source.agents.map((name) => [name, data.agents[name].label]);
  const compared = [["", "nothing"], ...agents.filter(([name]) => name !== map.agent)];
  return [...axes, ...fixed,
    choice("agent", agents, map.agent, (name) => {
      map.agent = name;
      if (map.minus === name) map.minus = "";
      redraw();
    }),
    choice("minus", compared, map.minus, (name) => { map.minus = name; redraw(); })];
}

/** Shows the curves of a cell, and leads to them. */
function openSetting(number, index) {
  state.setting[number] = index;
  drawMap(document.getElementById(`map-${number}`), number);
  drawAll();
  const caption = document.querySelector(`#regret-${number}-curves figcaption`);
  caption?.scrollIntoView({ block: "center" });
  caption?.focus({ preventScroll: true });
}

/** The arrow keys walk among the cells of a map. */
function walk(event) {
  const { cellIndex } = event.target.closest("td") ?? {};
  const row = event.target.closest("tr");
  const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
  if (cellIndex === undefined || !(event.key in steps)) return;
  event.preventDefault();
  const [down, right] = steps[event.key];
  const rows = [...row.parentElement.rows];
  const next = rows[rows.indexOf(row) + down]?.cells[cellIndex + right]?.querySelector("button");
  if (!next) return;
  event.target.tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
}

function isDark(color) {
  const [red, green, blue] = color.match(/\d+/g).map(Number);
  return 0.299 * red + 0.587 * green + 0.114 * blue < 140;
}
