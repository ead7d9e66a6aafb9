// How curves and shares are drawn. Needs `vegaEmbed`; knows nothing of agents, runs and controls.

const HEIGHT = 260;
const LOOK = {
  font: "system-ui, sans-serif",
  axis: { labelColor: "#222", titleColor: "#222", gridColor: "#e4e4e4", domainColor: "#666", titleFontWeight: "normal",
    labelFontSize: 11, titleFontSize: 12, labelOverlap: true },
  view: { stroke: null },
  aria: false, // A place has one description of its own, in place of one for every mark.
};

/** A number as people read it, with a minus sign that is one. */
function words(number) {
  if (number === null || number === undefined || !Number.isFinite(number)) return "–";
  const size = Math.abs(number);
  const text = size >= 1000 ? number.toFixed(0) : size >= 10 ? number.toFixed(1) : number.toFixed(size < 0.1 ? 3 : 2);
  return text.replace("-", "−");
}

/** A mean with its interval, such as "3.88 [3.65, 4.11]". */
function estimate(mean, low, high) {
  const known = mean !== null && low !== null && low !== undefined && high !== null;
  return words(mean) + (known ? ` [${words(low)}, ${words(high)}]` : "");
}

/** The rows of curves for Vega; on a logarithmic axis what is not positive is a gap, and bands end at the bottom. */
function rowsOf(lines, log, bottom) {
  const positive = (value) => (value === null || (log && value <= 0) ? null : value);
  const above = (value) => (value === null || value === undefined ? null : log ? Math.max(value, bottom) : value);
  return lines.flatMap((line) => line.at.map((x, i) => ({
    x: log && x <= 0 ? null : x, c: line.label, w: line.width, y: positive(line.mean[i]),
    l: line.low ? above(line.low[i]) : null, h: line.high ? above(line.high[i]) : null,
  })));
}

/**
 * Vertical limits that show all of some curves but those of play that only says how hard a problem is, where there are
 * others. The smallest positive mean is the bottom of a logarithmic axis.
 */
function limits(drawn, log) {
  const measured = drawn.filter((line) => !line.beyond);
  const lines = measured.length && !log ? measured : drawn;
  const means = lines.flatMap((line) => line.mean).filter((value) => value !== null && (!log || value > 0));
  const ends = lines.flatMap((line) => [...(line.low ?? []), ...(line.high ?? [])]).filter((value) => value !== null);
  const all = log ? [...means, ...ends.filter((value) => value > 0)] : [...means, ...ends, 0];
  if (!means.length) return null;
  if (log) return [Math.min(...means) / 1.3, Math.max(...all) * 1.1];
  const [low, high] = [Math.min(...all), Math.max(...all)];
  const margin = 0.04 * (high - low) || 1;
  return [low < 0 ? low - margin : low, high + margin];
}

/** Ticks at whole numbers: there is no round 2.5. */
function wholeTicks(low, high, log) {
  if (log || high - low > 12) return { tickMinStep: 1 };
  return { values: Array.from({ length: Math.floor(high - low) + 1 }, (_, i) => Math.ceil(low) + i) };
}

/** What Vega-Lite draws of curves `{label, color, dash, width, at, mean, low, high}`. */
function curvesSpec(lines, { x, y, log = false, domain = null, zeroLine = false, height = HEIGHT }) {
  const names = lines.map((line) => line.label);
  const type = log ? "log" : "linear";
  const span = domain ?? limits(lines, log) ?? [0, 1];
  const along = lines.flatMap((line) => line.at).filter((value) => !log || value > 0);
  const reach = [log ? Math.min(...along) : Math.min(0, ...along), Math.max(...along)];
  const scaled = (domain) => ({ type, domain, nice: false, ...(log ? {} : { zero: false }) });
  const vertical = { type: "quantitative", title: y, scale: scaled(span) };
  const dashes = lines.map((line) => (line.dash.length ? line.dash : [1, 0]));
  const rule = { mark: { type: "rule", color: "#999" }, encoding: { y: { datum: 0, type: "quantitative" } } };
  return {
    width: "container", height, autosize: { type: "fit-x", contains: "padding" }, background: null, config: LOOK,
    data: { values: rowsOf(lines, log, span[0]) },
    layer: [
      ...(zeroLine && !log ? [rule] : []),
      { mark: { type: "area", opacity: 0.16, clip: true, interpolate: "linear" },
        encoding: { y: { ...vertical, field: "l" }, y2: { field: "h" } } },
      { mark: { type: "line", clip: true },
        encoding: { y: { ...vertical, field: "y" },
          strokeWidth: { field: "w", type: "quantitative", scale: null, legend: null },
          strokeDash: { field: "c", type: "nominal", scale: { domain: names, range: dashes }, legend: null } } },
    ],
    encoding: {
      x: { field: "x", type: "quantitative", title: x, scale: scaled(reach),
        axis: { ...wholeTicks(...reach, log), grid: false } },
      color: { field: "c", type: "nominal", legend: null,
        scale: { domain: names, range: lines.map((line) => line.color) } },
    },
  };
}

/** What Vega-Lite draws of shares by rank and bin of rounds. */
function sharesSpec({ edges, shares }, ramp) {
  const values = shares.flatMap((row, rank) => row.map((share, i) => ({
    a: edges[i] - 0.5, b: edges[i + 1] - 0.5, rank, share })));
  return {
    width: "container", height: Math.max(90, 26 * shares.length + 30), autosize: { type: "fit-x", contains: "padding" },
    background: null, config: LOOK, data: { values }, mark: { type: "rect" },
    encoding: {
      x: { field: "a", type: "quantitative", title: "round t", axis: { tickMinStep: 1, grid: false },
        scale: { domain: [edges[0] - 0.5, edges.at(-1) - 0.5], nice: false, zero: false } },
      x2: { field: "b" },
      y: { field: "rank", type: "ordinal", title: "rank of the arm" },
      color: { field: "share", type: "quantitative", title: "share",
        scale: { type: "sqrt", domain: [0, 1], range: ramp } },
      tooltip: [{ field: "rank" }, { field: "a", title: "from round" }, { field: "share", format: ".3f" }],
    },
  };
}

/** Draws a spec in a place, in place of what was there before; the description is for who does not see it. */
async function draw(place, spec, description) {
  place.drawn?.finalize();
  place.querySelector(".chart").setAttribute("aria-label", description);
  const turn = (place.turn = (place.turn ?? 0) + 1);
  const options = { mode: "vega-lite", renderer: "svg", actions: false, defaultStyle: false };
  const drawn = await vegaEmbed(place.querySelector(".chart"), spec, options);
  if (place.turn === turn) place.drawn = drawn;
  else drawn.finalize(); // It was drawn again meanwhile.
}

/** Lets a place read its curves aloud at one point: where the pointer is, or where the arrow keys lead. */
function readable(place) {
  const canvas = place.querySelector(".chart");
  const list = place.querySelector(".reading");
  const mark = document.createElement("span");
  mark.className = "mark";
  let where = null;
  const offset = () => place.drawn.view.padding().left + place.drawn.view.origin()[0];
  const show = (index) => {
    const lines = place.lines ?? [];
    const at = lines[0]?.at ?? [];
    if (!at.length) return;
    where = Math.max(0, Math.min(at.length - 1, index));
    const values = lines.map((line) => ({ line, i: line.at.indexOf(at[where]) })).filter(({ i }) => i >= 0);
    values.sort((a, b) => (b.line.mean[b.i] ?? -Infinity) - (a.line.mean[a.i] ?? -Infinity));
    const entries = values.map(({ line, i }) => {
      const entry = document.createElement("li");
      entry.textContent = `${line.label}: ${estimate(line.mean[i], line.low?.[i], line.high?.[i])}`;
      entry.style.borderColor = line.color;
      return entry;
    });
    const head = document.createElement("li");
    head.textContent = `${place.along} ${at[where]}`;
    head.className = "head";
    list.replaceChildren(head, ...entries);
    mark.style.left = `${offset() + place.drawn.view.scale("x")(at[where])}px`;
    canvas.append(mark);
  };
  canvas.addEventListener("pointermove", (event) => {
    const at = place.lines?.[0]?.at ?? [];
    if (!place.drawn || !at.length) return;
    const x = place.drawn.view.scale("x").invert(event.clientX - canvas.getBoundingClientRect().left - offset());
    const distance = at.map((value) => Math.abs(value - x));
    show(distance.indexOf(Math.min(...distance)));
  });
  canvas.addEventListener("keydown", (event) => {
    const last = (place.lines?.[0]?.at.length ?? 1) - 1;
    const steps = { ArrowLeft: (where ?? 0) - 1, ArrowRight: where === null ? 0 : where + 1, Home: 0, End: last };
    if (event.key in steps) {
      event.preventDefault();
      show(steps[event.key]);
    }
  });
  place.forget = () => { where = null; list.replaceChildren(); };
}
