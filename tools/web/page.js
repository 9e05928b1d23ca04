// ------------------------------------------------------------------------------------------- the page

let image = null;     // the prepared digit, null while there is none
let line = null;      // the prepared line, and the logits at its places
let chosen = null;    // the place whose maps are shown; null: that of the last digit
let waiting = false;

const ofNumber = () => view === VIEWS.number, drawn = () => view.strokes.length > 0;
const BLANK = {w: 88, at: new Uint8Array(32 * 88)};  // the line before something is written

/** What is drawn has changed. */
function change() {
  chosen = null;
  update();
}

/** Draw, prepare and read what is on the canvas, once before the next frame. */
function update() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    ink();
    element("hint").hidden = drawn();
    if (ofNumber()) updateNumber(); else updateDigit();
  });
}

function updateDigit() {
  const {grey, w, h} = drawing();
  image = drawn() ? prepare(grey, w, h) : null;
  const states = forward(seen()), probabilities = softmax(states.logits);
  paintLayers(states, DIGITS.relu, image);
  const [[best, share], [second, less]] = [...probabilities.entries()].sort(([, a], [, b]) => b - a);
  element("digit").textContent = image ? best : "–";
  element("share").textContent = image ? percent(share) : "";
  element("second").textContent = image ? `then ${second}: ${percent(less)}` : "Draw a digit, or take a sample.";
}

const seen = () => augment(image || new Uint8Array(784), settings);

function percent(share) {
  if (share < 0.0005) return "< 0.1 %";
  return share > 0.9995 ? "> 99.9 %" : `${(100 * share).toFixed(1)} %`;
}

// The number: the line, what is read in it, and the place that is looked at.

function updateNumber() {
  const {grey, w, h} = drawing(), prepared = drawn() ? prepareLine(grey, w, h, settings.gap) : null;
  image = prepared?.at ? prepared : null;
  line = image || BLANK;
  line = {w: line.w, at: augment(line.at, settings, line.w)};
  line.logits = sweep(line.at, line.w);
  line.digits = image ? bestPath(line.logits) : [];
  const number = line.digits.map(({digit}) => digit).join("");
  element("digit").textContent = number || "–";
  element("share").textContent = "";
  const unread = image ? "No digit that can be read." : prepared?.problem || "Write a number, or take a sample.";
  element("second").textContent = number ? "" : unread;
  showLine();
}

function showLine() {
  paint(element("line"), line.at, line.w, 0, 255, palette.ink);
  const places = line.logits.length, shares = line.logits.map(softmax);
  const cells = all(11).flatMap((digit) => shares.map((share) => share[digit]));
  paint(element("places"), cells, places, 0, 1, palette.ink);
  // Place t has its middle at column 2 t + 16 of the line.
  const percentage = (column) => `${100 * column / line.w}%`;
  element("strip").style.width = `${Math.min(100, 100 * line.w / BLANK.w)}%`;
  element("places").style.marginLeft = percentage(15);
  element("places").style.width = percentage(2 * places);
  element("labels").replaceChildren(...line.digits.map(({digit, place}) => {
    const label = make("span", {textContent: digit});
    label.style.left = percentage(2 * place + 16);
    return label;
  }));
  showPlace();
}

/** The maps of the place that is looked at. */
function showPlace() {
  const input = new Float32Array(1024), place = placeShown(), levels = inputOf(line.at);
  for (let y = 0; y < 32; y++) input.set(levels.subarray(y * line.w + 2 * place, y * line.w + 2 * place + 32), 32 * y);
  const states = statesOf(input, NUMBERS), shares = softmax(states.logits), best = shares.indexOf(Math.max(...shares));
  paintLayers(states, NUMBERS.relu, image);
  const left = 100 * (2 * place + 15) / line.w;
  Object.assign(element("chosen").style, {left: `${left}%`, width: `${200 / line.w}%`});
  const last = line.logits.length - 1, read = `${best < 10 ? best : "none"}, ${percent(shares[best])}`;
  const ariaValueText = `place ${place + 1} of ${last + 1}: ${read}`;
  Object.assign(element("places"), {ariaValueNow: place, ariaValueMin: 0, ariaValueMax: last, ariaValueText});
}

function placeShown() {
  const last = line.digits.length ? line.digits[line.digits.length - 1].place : 0;
  return Math.min(chosen ?? Math.floor(last), line.logits.length - 1);
}

function choose(place) {
  chosen = Math.min(Math.max(place, 0), line.logits.length - 1);
  showPlace();
}

element("places").onclick = ({offsetX, currentTarget}) => {
  choose(Math.floor(offsetX / currentTarget.clientWidth * line.logits.length));
};
element("places").onkeydown = (event) => {
  const step = {ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, Home: -1e3, End: 1e3}[event.key];
  if (!step) return;
  event.preventDefault();
  choose(placeShown() + step);
};

function speak() {
  setTimeout(() => { element("spoken").textContent = image ? `Read as ${element("digit").textContent}` : ""; }, 300);
}

/** Open the view of a digit or of a number, with what was drawn there. */
function openView(name) {
  if (writing) empty();
  pen = null;
  view = VIEWS[name];
  const number = ofNumber();
  document.body.classList.toggle("number", number);
  Object.assign(canvas, {width: view.width, height: view.height});
  canvas.ariaLabel = `Drawing of a ${name}. Arrow keys move the pen, space lowers or lifts it. ` +
    "U takes the last stroke back, C or Delete clears.";
  element("of-digit").ariaPressed = !number;
  element("of-number").ariaPressed = number;
  element("hint").textContent = number ? "Write a number here" : "Draw a digit here";
  element("lowest").textContent = view.network.relu ? "0" : "−1.7";
  element("highest").textContent = view.network.relu ? "largest in its layer" : "+1.7";
  element("first-key").textContent = keyOf(0);
  element("last-key").textContent = keyOf(view.samples.length - 1);
  element("source").textContent = TRAINED[number ? "numbers" : "digits"].source;
  const [outputs, , count] = element("logits").previousSibling.lastChild.childNodes;
  outputs.textContent = `${number ? 11 : 10} logits`;
  count.textContent = `${number ? 935 : 850} parameters`;
  Object.assign(element("rotate-slider"), {min: -view.turns, max: view.turns});
  resetSliders();
  buildSamples();
  redraw();
  penHome();
  if (!view.opened) write(view.first);
  view.opened = true;
}

function redraw() {
  readColours(view.network.relu);
  const count = palette.units.length;
  paint(element("legend"), all(count), count, 0, count, palette.units);
  update();
}

buildNetwork();
buildTable();
buildSliders();
element("views").hidden = !NUMBERS;
element("of-digit").onclick = () => openView("digit");
element("of-number").onclick = () => openView("number");
dark.onchange = narrow.onchange = redraw;
openView("digit");

window.LeNet5 = {forward, prepare, prepareLine, sweep, augment, drawing, input: seen, show, choose, openView};
