// ------------------------------------------------------------------------------------------- the layers, shown

const element = (id) => document.getElementById(id);

function make(name, properties, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

const LAYERS = [
  {id: "c1", count: 6, side: 28, kind: "5×5 convolution", parameters: "156"},
  {id: "s2", count: 6, side: 14, kind: "2×2 subsampling", parameters: "12"},
  {id: "c3", count: 16, side: 10, kind: "5×5 convolution", parameters: "1,516"},
  {id: "s4", count: 16, side: 5, kind: "2×2 subsampling", parameters: "32"},
  {id: "c5", count: 120, side: 1, kind: "5×5 convolution", parameters: "48,120"},
  {id: "f6", count: 84, side: 1, kind: "full connection", parameters: "10,164"},
];
const narrow = matchMedia("(max-width: 860px)"), dark = matchMedia("(prefers-color-scheme: dark)");
const across = ({id}) => narrow.matches ? {c5: 30, f6: 21}[id] : {c5: 60, f6: 42}[id];

function buildNetwork() {
  for (const {id, count, side, kind, parameters} of LAYERS) {
    const form = side > 1 ? `${count} maps of ${side}×${side}` : `${count} units`;
    const label = heading(id.toUpperCase(), kind, form, parameters);
    const maps = make("div", {id, className: side > 1 ? "maps" : "units"});
    maps.role = id === "c3" ? "group" : "img";
    maps.ariaLabel = `${id.toUpperCase()}, ${form}`;
    for (let i = 0; i < (side > 1 ? count : 1); i++) {
      const canvas = make("canvas", {width: side, height: side});
      const properties = {className: "map", type: "button", tabIndex: i ? -1 : 0};
      maps.append(id === "c3" ? make("button", properties, canvas) : canvas);
    }
    element("network").append(make("div", {className: "layer"}, label, maps));
  }
  const logits = make("div", {className: "logits", id: "logits"});
  for (const digit of [...all(10), "none"]) {
    const well = make("div", {className: "well"}, make("div", {className: "bar"}));
    const name = make("div", {className: "name", textContent: digit});
    logits.append(make("div", {}, make("small"), well, name, make("small")));
  }
  const label = heading("Output", "full connection", "10 logits", "850");
  element("network").append(make("div", {className: "layer"}, label, logits));
}

function heading(name, kind, form, parameters) {
  const count = make("span", {className: "parameters", textContent: `${parameters} parameters`});
  const what = make("div", {className: "what"}, form, make("br"), count);
  return make("div", {}, make("h2", {}, name, " ", make("span", {textContent: kind})), what);
}

/** The maps of S2 that a map of C3 reads stand out while the pointer or the focus is on it. */
function buildTable() {
  const buttons = [...element("c3").children], sources = [...element("s2").children];
  const label = element("c3").previousSibling.lastChild, rest = [...label.childNodes];
  buttons.forEach((button, map) => {
    button.ariaLabel = `C3, map ${map}: reads S2’s maps ${TABLE_I[map].join(" ")}`;
    const show = () => {
      sources.forEach((source, i) => source.classList.toggle("idle", !TABLE_I[map].includes(i)));
      const maps = make("span", {textContent: `maps ${TABLE_I[map].join(" ")}`});
      label.replaceChildren(`map ${map} reads S2’s`, make("br"), maps);
    };
    const hide = () => {
      sources.forEach((source) => source.classList.remove("idle"));
      label.replaceChildren(...rest);
    };
    button.onpointerenter = button.onfocus = show;
    button.onpointerleave = button.onblur = hide;
    button.onkeydown = (event) => {
      const step = {ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1}[event.key];
      if (!step) return;
      event.preventDefault();
      const next = buttons[(map + step + 16) % 16];
      button.tabIndex = -1;
      next.tabIndex = 0;
      next.focus();
    };
  });
}

// Colours: ink and paper of the input, and the diverging scale of the units, as pixels.

const palette = {};

function mix(from, to, count) {
  const [a, b] = [from, to].map((hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16)));
  const between = (share) => a.map((value, channel) => Math.round(value + (b[channel] - value) * share));
  return all(count).map((i) => [...between(i / (count - 1)), 255]);
}

function readColours(relu) {
  const style = getComputedStyle(document.documentElement), colour = (name) => style.getPropertyValue(name).trim();
  const positive = mix(colour("--middle"), colour("--high"), 128);
  palette.units = relu ? positive : [...mix(colour("--low"), colour("--middle"), 128), ...positive];
  palette.ink = mix(colour("--sheet"), colour("--ink"), 256);
}

/** Draw values as pixels, `width` to a row: the lowest value has the first colour, the highest one the last. */
function paint(canvas, values, width, low, high, colours) {
  canvas.width = width;
  canvas.height = Math.ceil(values.length / width);
  const context = canvas.getContext("2d"), pixels = context.createImageData(canvas.width, canvas.height);
  values.forEach((value, i) => {
    const at = Math.floor((value - low) / (high - low) * colours.length);
    pixels.data.set(colours[Math.min(Math.max(at, 0), colours.length - 1)], 4 * i);
  });
  context.putImageData(pixels, 0, 0);
}

/** Show the maps and logits of a network; `something` says whether they are of a drawing. */
function paintLayers({logits, maps}, relu, something) {
  paint(element("seen"), maps.input, 32, -0.1, 1.175, palette.ink);
  for (const layer of LAYERS) {
    const {id, side} = layer;
    const most = relu ? maps[id].reduce((a, b) => Math.max(a, b), 1e-6) : A;  // ReLU's outputs have no bound
    const canvases = element(id).querySelectorAll("canvas");
    canvases.forEach((canvas, i) => {
      const map = side > 1 ? maps[id].subarray(i * side * side, (i + 1) * side * side) : maps[id];
      paint(canvas, map, side > 1 ? side : across(layer), relu ? 0 : -most, most, palette.units);
    });
  }
  const probabilities = softmax(logits), best = probabilities.indexOf(Math.max(...probabilities));
  [...element("logits").children].slice(0, logits.length).forEach((column, digit) => {
    const [share, well, , logit] = column.children, bar = well.firstChild;
    column.className = digit === best && something ? "best" : "";
    share.textContent = probabilities[digit] >= 0.005 && something ? Math.round(100 * probabilities[digit]) : "\u00a0";
    logit.textContent = logits[digit].toFixed(1).replace("-", "−");
    bar.className = logits[digit] > 0 ? "bar up" : "bar";
    bar.style.transform = `scaleY(${Math.min(Math.max(-logits[digit] / 25, -1), 0.6)})`;
  });
}
