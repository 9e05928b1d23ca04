// ------------------------------------------------------------------------------------------- the preparation
// Step by step that of digits/preprocessing.py, where it is explained. An image is {h, w, at}: at[y * w + x].

const LOOK_AT = 160, TINY = 1e-6;

function median(values) {
  const sorted = values.slice().sort(), half = sorted.length >> 1;
  return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}

/** Area averages of the rows from `start` to `stop` as `count` rows, transposed. */
function resampleRows({h, w, at}, [start, stop], count) {
  const above = new Float64Array((h + 1) * w), result = new Float64Array(w * count);
  for (let i = 0; i < h * w; i++) above[i + w] = above[i] + at[i];
  const before = new Float64Array(w), size = (stop - start) / count;
  for (let i = 0; i <= count; i++) {
    const edge = Math.min(Math.max(start + (stop - start) * i / count, 0), h);
    const y = Math.min(Math.floor(edge), h - 1), part = edge - y;
    for (let x = 0, from = y * w; x < w; x++, from++) {
      const sum = above[from] + part * at[from];  // of what lies above the edge
      if (i) result[x * count + i - 1] = (sum - before[x]) / size;
      before[x] = sum;
    }
  }
  return {h: w, w: count, at: result};
}

function resample(image, [rows, columns], [h, w]) {
  return resampleRows(resampleRows(image, rows, h), columns, w);
}

function shrink(image, longest) {
  const {h, w} = image, ratio = Math.max(h, w) / longest;
  if (ratio <= 1) return image;
  return resample(image, [[0, h], [0, w]], [h, w].map((size) => Math.max(1, Math.floor(size / ratio + 0.5))));
}

/** The values near the edge. */
function border({h, w}, values) {
  const width = Math.ceil(Math.min(h, w) / 12), near = [];
  for (let y = 0; y < h; y++) {
    const inside = y >= width && y < h - width;
    for (let x = 0; x < w; x++) {
      if (inside && x === width && w > 2 * width) x = w - width;
      near.push(values[y * w + x]);
    }
  }
  return Float64Array.from(near);
}

/** The solution of six linear equations with a positive definite matrix. */
function solve(matrix, right) {
  for (let i = 0; i < 6; i++) {
    for (let row = i + 1; row < 6; row++) {
      const factor = matrix[row][i] / matrix[i][i];
      for (let j = i; j < 6; j++) matrix[row][j] -= factor * matrix[i][j];
      right[row] -= factor * right[i];
    }
  }
  for (let i = 5; i >= 0; i--) {
    for (let j = i + 1; j < 6; j++) right[i] -= matrix[i][j] * right[j];
    right[i] /= matrix[i][i];
  }
  return right;
}

/** An image less the brightness of its ground: a quadratic surface, fitted to the pixels that look like the border. */
function subtractLighting(grey) {
  const small = shrink(grey, 48), {h, w, at} = small, level = median(border(small, at));
  let residual = at.map((value) => value - level), surface;
  for (let pass = 0; pass < 8; pass++) {
    const noise = Math.max(4, 1.5 * median(border(small, residual).map(Math.abs)));
    const matrix = all(6).map(() => new Float64Array(6)), right = new Float64Array(6), terms = new Float64Array(6);
    let total = 0;
    for (let i = 0; i < h * w; i++) {
      const ratio = residual[i] / (2 * noise), root = 1 + ratio * ratio, weight = 1 / (root * root);
      const y = (2 * Math.floor(i / w) + 1) / h - 1, x = (2 * (i % w) + 1) / w - 1;
      terms[0] = 1, terms[1] = x, terms[2] = y, terms[3] = x * x, terms[4] = x * y, terms[5] = y * y;
      for (let a = 0; a < 6; a++) {
        right[a] += weight * terms[a] * at[i];
        for (let b = 0; b < 6; b++) matrix[a][b] += weight * terms[a] * terms[b];
      }
      total += weight;
    }
    for (let a = 1; a < 6; a++) matrix[a][a] += 1e-3 * total;
    surface = solve(matrix, right);
    residual = subtractSurface(small, surface);
  }
  return subtractSurface(grey, surface);
}

/** How much brighter an image is than a surface, given by its factors of 1, x, y, x², xy and y². */
function subtractSurface({h, w, at}, [a, b, c, d, e, f]) {
  const result = new Float64Array(h * w);
  for (let row = 0, i = 0; row < h; row++) {
    const y = (2 * row + 1) / h - 1;
    for (let column = 0; column < w; column++, i++) {
      const x = (2 * column + 1) / w - 1;
      result[i] = at[i] - (a + b * x + c * y + d * x * x + e * x * y + f * y * y);
    }
  }
  return result;
}

/** The ink of an image, its box [[top, bottom], [left, right]]; null if there is none. */
function findInk(grey) {
  const {h, w} = grey;
  let contrast = subtractLighting(grey);
  let sum = 0;
  for (const v of contrast) sum += v * v * v;
  if (sum < 0) contrast = contrast.map((v) => -v);
  const noise = Math.max(1, 1.5 * median(border(grey, contrast).map(Math.abs)));
  let squares = 0, cubes = 0;
  for (const v of contrast) if (v > 3 * noise) { squares += v * v; cubes += v * v * v; }
  const full = cubes / Math.max(squares, 1);
  if (full < Math.max(16, 4.5 * noise)) return null;
  const threshold = Math.max(0.35 * full, 3.5 * noise);
  const {kept, side, columns} = dropSpecks(contrast, threshold, h, w);
  const ink = new Float64Array(h * w);
  let top = h, bottom = 0, left = w, right = 0;
  for (let y = 0, i = 0; y < h; y++) {
    const row = Math.floor(y / side) * columns;
    for (let x = 0; x < w; x++, i++) {
      if (!kept[row + Math.floor(x / side)]) continue;
      ink[i] = Math.max(contrast[i] - 2.5 * noise, 0) / full;
      if (contrast[i] > threshold) {
        top = Math.min(top, y), bottom = Math.max(bottom, y + 1);
        left = Math.min(left, x), right = Math.max(right, x + 1);
      }
    }
  }
  return {ink: {h, w, at: ink}, box: [[top, bottom], [left, right]]};
}

/** The cells of a grid around the pieces above a threshold with at least a twentieth of the largest one's pixels. */
function dropSpecks(contrast, threshold, h, w) {
  const side = Math.ceil(Math.max(h, w) / 64), rows = Math.ceil(h / side), columns = Math.ceil(w / side);
  const cells = new Int32Array(rows * columns), pieces = [];
  for (let y = 0, i = 0; y < h; y++) {
    const row = Math.floor(y / side) * columns;
    for (let x = 0; x < w; x++, i++) if (contrast[i] > threshold) cells[row + Math.floor(x / side)]++;
  }
  const around = (at, visit) => {
    const row = Math.floor(at / columns), column = at % columns;
    for (let y = Math.max(0, row - 1); y <= Math.min(rows - 1, row + 1); y++) {
      for (let x = Math.max(0, column - 1); x <= Math.min(columns - 1, column + 1); x++) visit(y * columns + x);
    }
  };
  const free = cells.map((mass) => mass > 0);
  free.forEach((_, start) => {
    if (!free[start]) return;
    const piece = [start];
    free[start] = 0;
    for (const at of piece) around(at, (next) => { if (free[next]) { free[next] = 0; piece.push(next); } });
    pieces.push({piece, mass: piece.reduce((sum, at) => sum + cells[at], 0)});
  });
  const least = Math.max(...pieces.map(({mass}) => mass)) / 20, kept = new Uint8Array(cells.length);
  const large = pieces.filter(({mass}) => mass >= least), small = pieces.filter(({mass}) => mass < least);
  for (const {piece} of large) for (const at of piece) around(at, (next) => { kept[next] = 1; });
  for (const {piece} of small) for (const at of piece) kept[at] = 0;
  return {kept, side, columns};
}

/** Ink inside a box -> Uint8Array(784): the longer side 20 pixels, the centre of mass in the centre. */
function place({w, at}, [[top, bottom], [left, right]]) {
  const h = bottom - top, width = right - left, unit = Math.max(h, width) / 20;
  const ink = {h, w: width, at: new Float64Array(h * width)};
  const profiles = [new Float64Array(h), new Float64Array(width)];
  for (let y = 0; y < h; y++) {
    for (let x = 0; x < width; x++) {
      const value = ink.at[y * width + x] = at[(top + y) * w + left + x];
      profiles[0][y] += value;
      profiles[1][x] += value;
    }
  }
  const spans = profiles.map((profile) => {
    const total = profile.reduce((a, b) => a + b), moment = profile.reduce((sum, v, i) => sum + v * (i + 0.5), 0);
    const offset = Math.min(Math.max(Math.ceil(14 - moment / total / unit - TINY), 0), 28 - profile.length / unit);
    return [-offset * unit, (28 - offset) * unit];
  });
  const field = resample(ink, spans, [28, 28]).at, gain = 255 / Math.max(...field);
  return Uint8Array.from(field, (value) => Math.min(Math.max(Math.floor(value * gain + 0.5 + TINY), 0), 255));
}

/** The part of an image inside a box. */
function crop(image, [[top, bottom], [left, right]]) {
  const part = {h: bottom - top, w: right - left, at: new Float64Array((bottom - top) * (right - left))};
  for (let y = 0; y < part.h; y++) {
    part.at.set(image.at.subarray((top + y) * image.w + left, (top + y) * image.w + right), y * part.w);
  }
  return part;
}

/** An image of one digit, w×h grey levels, as MNIST would hold it: Uint8Array(784), ink 255; null without ink. */
function prepare(levels, w, h) {
  const found = lookTwice({h, w, at: new Float64Array(levels)});
  return found && place(found.ink, found.box);
}

/** The ink of an image and its box: looked for in the whole image, then around what was found; null without ink. */
function lookTwice(grey, longest = LOOK_AT, share = 0.25) {
  const {h, w} = grey, first = findInk(shrink(grey, longest));
  if (!first) return null;
  const ratio = Math.max(1, Math.max(h, w) / longest);
  const margin = share * Math.max(...first.box.map(([start, stop]) => stop - start));
  const [[top, bottom], [left, right]] = first.box.map(([start, stop], axis) => [
    Math.max(0, Math.trunc((start - margin) * ratio)), Math.min([h, w][axis], Math.trunc((stop + margin) * ratio) + 1),
  ]);
  if (bottom - top === h && right - left === w) return first;
  return findInk(shrink(crop(grey, [[top, bottom], [left, right]]), longest));
}
