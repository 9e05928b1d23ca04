// ------------------------------------------------------------------------------------------- the drawing
// What is drawn is a list of strokes, and a stroke a list of points (x, y), both in heights of the drawing. The canvas
// holds ink only, as its opacity.

const VIEWS = {
  digit: {width: 448, height: 448, pen: 36, network: DIGITS, samples: TRAINED.digits.samples, turns: 90, first: 3},
  number: {width: 1080, height: 432, pen: 26, network: NUMBERS, samples: TRAINED.numbers?.samples, turns: 15, first: 0},
};
const canvas = element("drawing"), context = canvas.getContext("2d", {willReadFrequently: true});
const still = matchMedia("(prefers-reduced-motion: reduce)");
const LIFT = 0.25, SPEED = 1.9;  // between two strokes, and in a second: in heights of the drawing

let view = null;       // that of VIEWS which is open: its strokes are the drawing
let pen = null;        // the stroke that is being drawn
let writing = null;    // the sample that is being written
let cursor = [0, 0];   // where the keyboard's pen is

for (const one of Object.values(VIEWS)) Object.assign(one, {strokes: [], sampled: false});

/** Draw a stroke to the middles between its points: the line is round, whatever the points are. */
function trace(context, points, {height, pen}) {
  let [x, y] = points[0].map((at) => at * height);
  Object.assign(context, {lineWidth: pen, lineCap: "round", lineJoin: "round"});
  context.beginPath();
  context.moveTo(x, y);
  for (const point of points) {
    const [u, v] = point.map((at) => at * height);
    context.quadraticCurveTo(x, y, (x + u) / 2, (y + v) / 2);
    [x, y] = [u, v];
  }
  context.lineTo(x, y);
  context.stroke();
}

function drawing() {
  const {width, height} = view, pixels = context.getImageData(0, 0, width, height).data;
  return {grey: new Uint8Array(width * height).map((_, i) => pixels[4 * i + 3]), w: width, h: height};
}

/** Draw all strokes anew. */
function ink() {
  context.clearRect(0, 0, view.width, view.height);
  for (const stroke of view.strokes) trace(context, stroke, view);
}

function penDown(point) {
  if (writing || view.sampled) empty();  // the pen does not write into a sample
  pen = [point];
  view.strokes.push(pen);
  change();
}

function penTo(point) {
  pen.push(point);
  change();
}

function penUp() {
  if (pen) speak();
  pen = null;
}

function empty() {
  Object.assign(view, {strokes: [], sampled: false});
  pen = writing = null;
  change();
}

function clear() {
  empty();
  penHome();
}

/** The keyboard's pen goes to the middle. */
function penHome() {
  cursor = [view.width / view.height / 2, 0.5];
  showPen();
}

/** Take the last stroke back. */
function undo() {
  view.strokes = view.strokes.slice(0, -1);
  if (!view.strokes.length) view.sampled = false;
  pen = writing = null;
  change();
  speak();
}

/** The lengths of a stroke's steps from point to point. */
const stepsOf = (stroke) => stroke.slice(1).map(([x, y], i) => Math.hypot(x - stroke[i][0], y - stroke[i][1]));

/** The beginning of some strokes, as far as the pen has come: a share of its way, from 0 to 1. */
function begun(strokes, share) {
  const part = [];
  let left = share * wayOf(strokes);
  for (const [i, stroke] of strokes.entries()) {
    if (left <= 0) break;
    part.push([stroke[0]]);
    for (const [j, way] of stepsOf(stroke).entries()) {
      const [from, to] = stroke.slice(j, j + 2), reached = Math.min(left / Math.max(way, 1e-9), 1);
      part[i].push(from.map((at, axis) => at + reached * (to[axis] - at)));
      left -= way;
      if (left <= 0) break;
    }
    left -= LIFT;
  }
  return part;
}

function wayOf(strokes) {
  return strokes.reduce((sum, stroke) => stepsOf(stroke).reduce((a, b) => a + b, sum + LIFT), -LIFT);
}

/** Show a share of a sample, as its pen has come to it. */
function show(index, share) {
  empty();
  const {strokes} = view.samples[index];
  Object.assign(view, {sampled: true, strokes: share < 1 ? begun(strokes, share) : strokes});
  cursor = view.strokes[view.strokes.length - 1]?.slice(-1)[0] || strokes[0][0];
}

/** Write a sample, stroke by stroke; at once where the reader wants nothing to move. */
function write(index) {
  if (!view.samples[index]) return;
  if (still.matches) { show(index, 1); return speak(); }
  const seconds = wayOf(view.samples[index].strokes) / SPEED, begin = performance.now();
  const frame = (now) => {
    if (writing !== frame) return;  // something else is drawn by now
    const share = Math.min(Math.max(now - begin, 0) / 1000 / seconds, 1);
    show(index, share);
    if (share < 1) requestAnimationFrame(writing = frame); else speak();
    showPen();
  };
  writing = frame;
  frame(begin);
}

function buildSamples() {
  element("samples").replaceChildren(...view.samples.map(({name}, i) => {
    const canvas = make("canvas", {width: view.width / 6, height: view.height / 6});
    return make("button", {type: "button", ariaLabel: `Sample ${name}`, onclick: () => write(i)}, canvas);
  }));
  view.samples.forEach(({strokes}, i) => {
    const context = element("samples").children[i].firstChild.getContext("2d");
    for (const stroke of strokes) trace(context, stroke, {height: view.height / 6, pen: view.pen / 5});
  });
}

// Mouse, pen and finger.

function where(event) {
  const box = canvas.getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top].map((at) => at / box.height);
}

canvas.onpointerdown = (event) => {
  if (event.button || pen) return;
  canvas.setPointerCapture(event.pointerId);
  penDown(where(event));
};
canvas.onpointermove = (event) => {
  if (!pen || !canvas.hasPointerCapture(event.pointerId)) return;
  const passed = event.getCoalescedEvents ? event.getCoalescedEvents() : [];
  for (const point of passed.length ? passed : [event]) penTo(where(point));
};
canvas.onpointerup = canvas.onpointercancel = penUp;

// The keyboard's pen.

canvas.onkeydown = (event) => {
  const step = {ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1]}[event.key];
  if (step) {
    const most = [view.width / view.height, 1];
    cursor = cursor.map((at, axis) => Math.min(Math.max(at + step[axis] / 28, 0), most[axis]));
    if (pen) penTo(cursor);
  } else if (event.key === " ") {
    if (pen) penUp(); else penDown(cursor);
  } else {
    return;
  }
  event.preventDefault();
  showPen();
};
canvas.onblur = () => { penUp(); showPen(); };

function showPen() {
  const mark = element("pen");
  mark.style.left = `${cursor[0] * view.height / view.width * 100}%`;
  mark.style.top = `${cursor[1] * 100}%`;
  mark.classList.toggle("down", Boolean(pen || writing));
  mark.classList.toggle("writes", Boolean(writing));
}

document.onkeydown = (event) => {
  if (event.altKey) return;
  const command = event.ctrlKey || event.metaKey, key = event.key.toLowerCase();
  if (command ? key === "z" : key === "u") { event.preventDefault(); return undo(); }
  if (command) return;
  const sample = view.samples.findIndex((_, i) => keyOf(i) === key);
  if (sample >= 0) write(sample);
  if (["c", "delete", "backspace"].includes(key)) clear();
};
element("clear").onclick = clear;
element("undo").onclick = undo;

/** The key that writes a sample: 0 to 9 for the digits, 1 to 5 for the numbers. */
const keyOf = (sample) => String(view === VIEWS.digit ? sample : sample + 1);
