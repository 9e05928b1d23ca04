// A number: as digits/pieces.py and evened there, from parts_of on. Left out is all that only photos need: nothing but
// ink is drawn here, so there is no ground to find, and no rule, comma or frame to take away. The sweep alone reads.

const FULL = 0.375;
const MARGIN = 18; // free pixels before and behind

/** A line of digits drawn, `gap` pixels apart: {w, at: 32 rows of w levels}, {problem} or null without ink. */
function prepareLine(levels, w, h, gap = 6) {
  const ink = {h, w, at: Float64Array.from(levels, (level) => level / 255)}, {labels, parts} = partsOf(ink);
  if (!parts.length) return null;
  if (severalLines(parts)) return {problem: "One line at a time, please."};
  return evened(upright(grouped(parts).map((own) => inkOf(ink, labels, own))), gap);
}

/** What is connected, and more than a speck: labels of all pixels, and of each part its label, box and area. */
function partsOf({h, w, at}) {
  const labels = new Int32Array(h * w), parts = [];
  for (let start = 0; start < h * w; start++) {
    if (!(at[start] > FULL) || labels[start]) continue;
    const label = parts.length + 1, part = {label, top: h, bottom: 0, left: w, right: 0, area: 0}, todo = [start];
    labels[start] = label;
    while (todo.length) {
      const from = todo.pop(), y = Math.floor(from / w), x = from % w;
      part.top = Math.min(part.top, y), part.bottom = Math.max(part.bottom, y + 1), part.area++;
      part.left = Math.min(part.left, x), part.right = Math.max(part.right, x + 1);
      for (let v = Math.max(0, y - 1); v <= Math.min(h - 1, y + 1); v++) {
        for (let u = Math.max(0, x - 1); u <= Math.min(w - 1, x + 1); u++) {
          const next = v * w + u;
          if (at[next] > FULL && !labels[next]) { labels[next] = label; todo.push(next); }
        }
      }
    }
    parts.push(part);
  }
  const most = parts.reduce((area, part) => Math.max(area, part.area), 0);
  return {labels, parts: parts.filter(({area}) => area >= most / 40)};
}

/** Whether tall parts stand below others, with free rows between. */
function severalLines(parts) {
  const bands = [];
  for (const {top, bottom} of [...parts].sort((a, b) => a.top - b.top)) {
    const last = bands[bands.length - 1];
    if (last && top <= last.bottom) last.bottom = Math.max(last.bottom, bottom); else bands.push({top, bottom});
  }
  const heights = bands.map(({top, bottom}) => bottom - top);
  return heights.filter((height) => height > Math.max(...heights) / 3).length > 1;
}

/** The parts in pieces from left to right: those above each other are one, and so is a digit with a broken stroke. */
function grouped(parts) {
  const groups = [], height = ({top, bottom}) => bottom - top;
  for (const part of [...parts].sort((a, b) => height(b) - height(a))) {
    const {left, right} = part;
    const group = groups.find(({start, stop}) =>
      Math.min(stop, right) - Math.max(start, left) > 0.5 * Math.min(stop - start, right - left));
    if (!group) { groups.push({start: left, stop: right, own: [part]}); continue; }
    group.start = Math.min(group.start, left), group.stop = Math.max(group.stop, right), group.own.push(part);
  }
  const pieces = groups.sort((a, b) => a.start - b.start || a.stop - b.stop).map(({own}) => own);
  if (groups.length === 2) {
    const both = pieces.flat(), [one, other] = groups;
    const tall = Math.max(...both.map(({bottom}) => bottom)) - Math.min(...both.map(({top}) => top));
    if (other.start - one.stop <= 0.2 * tall && other.stop - one.start <= tall) return [both];
  }
  return pieces;
}

/** The ink of some parts, with their soft rims. */
function inkOf({w, at}, labels, own) {
  const [top, left] = ["top", "left"].map((side) => Math.min(...own.map((part) => part[side])));
  const [bottom, right] = ["bottom", "right"].map((side) => Math.max(...own.map((part) => part[side])));
  const mine = new Set(own.map(({label}) => label)), piece = {h: bottom - top, w: right - left};
  piece.at = new Float64Array(piece.h * piece.w);
  for (let y = top; y < bottom; y++) {
    for (let x = left; x < right; x++) {
      const label = labels[y * w + x];
      let near = mine.has(label);
      for (let v = Math.max(top, y - 1); !label && !near && v <= Math.min(bottom - 1, y + 1); v++) {
        for (let u = Math.max(left, x - 1); u <= Math.min(right - 1, x + 1); u++) near ||= mine.has(labels[v * w + u]);
      }
      if (near) piece.at[(y - top) * piece.w + x - left] = at[y * w + x];
    }
  }
  return piece;
}

/** The pieces sheared by their common slant, if there are three or more. */
function upright(pieces) {
  if (pieces.length < 3) return pieces;
  let across = 0, down = 0;
  for (const {h, w, at} of pieces) {
    let total = 0, x0 = 0, y0 = 0;
    at.forEach((value, i) => { total += value; x0 += value * (i % w); y0 += value * Math.floor(i / w); });
    at.forEach((value, i) => {
      const x = (i % w - x0 / total) / h, y = (Math.floor(i / w) - y0 / total) / h;
      across += value / h * x * y;
      down += value / h * y * y;
    });
  }
  return pieces.map((piece) => sheared(piece, -across / down));
}

/** Ink with each row moved to the right, `slant` pixels for each row down, in its box. */
function sheared({h, w, at}, slant) {
  const pad = Math.ceil(Math.abs(slant) * (h - 1) / 2), wide = w + 2 * pad;
  const moved = {h, w: wide, at: new Float64Array(h * wide)};
  for (let y = 0; y < h; y++) {
    for (let x = 0; x < wide; x++) {
      const from = x - pad - slant * (y - (h - 1) / 2), column = Math.floor(from), share = from - column;
      if (from < 0 || from > w - 1) continue;
      moved.at[y * wide + x] = (1 - share) * at[y * w + column] + (share ? share * at[y * w + column + 1] : 0);
    }
  }
  const full = (y, x) => moved.at[y * wide + x] > FULL;
  const rows = all(h).filter((y) => all(wide).some((x) => full(y, x)));
  const columns = all(wide).filter((x) => all(h).some((y) => full(y, x)));
  return crop(moved, [[rows[0], rows[rows.length - 1] + 1], [columns[0], columns[columns.length - 1] + 1]]);
}

/** A line of pieces of one height, with equal gaps: {w, at: 32 rows of w levels}. */
function evened(pieces, gap) {
  const parts = pieces.map((piece) => {
    const unit = Math.max(piece.h / 20, piece.w / 120), w = Math.ceil(piece.w / unit);
    const above = (32 * unit - piece.h) / 2;
    return resample(piece, [[-above, 32 * unit - above], [0, w * unit]], [32, w]);
  });
  const ink = MARGIN + parts.reduce((sum, part) => sum + part.w + gap, 0) - gap, w = ink + Math.max(MARGIN, 34 - ink);
  const at = new Uint8Array(32 * w);
  let left = MARGIN;
  for (const part of parts) {
    const most = part.at.reduce((a, b) => Math.max(a, b));
    part.at.forEach((value, i) => {
      at[Math.floor(i / part.w) * w + left + i % part.w] = Math.round(255 * Math.min(value / most, 1));
    });
    left += part.w + gap;
  }
  return {w, at};
}

/** What the best path through the logits reads: each digit, and the middle of its places. */
function bestPath(logits) {
  const found = [];
  let before = 10;
  logits.forEach((row, place) => {
    const digit = row.indexOf(Math.max(...row));
    if (digit < 10 && digit !== before) found.push({digit, first: place, last: place});
    else if (digit < 10) found[found.length - 1].last = place;
    before = digit;
  });
  return found.map(({digit, first, last}) => ({digit, place: (first + last) / 2}));
}
