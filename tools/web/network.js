// ------------------------------------------------------------------------------------------- the network
// LeNet-5 as in model.py. Maps are Float32Arrays: map after map, row after row.

const TRAINED = JSON.parse(document.getElementById("trained").textContent);
const TABLE_I = TRAINED.table;  // the maps of S2 that each map of C3 reads
const A = 1.7159, S = 2 / 3;

function bytes(base64) {
  return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
}

/** A network's layers, with the names that model.py gives them and their parameters: network.c1.bias. */
function decode({activation, weights}) {
  const relu = activation === "relu";
  const network = {relu, activate: relu ? (a) => Math.max(a, 0) : (a) => A * Math.tanh(S * a)};
  for (const [name, values] of Object.entries(weights)) {
    const [layer, parameter] = name.split(".");
    network[layer] ??= {};
    network[layer][parameter] = new Float32Array(bytes(values).buffer);
  }
  return network;
}

const DIGITS = decode(TRAINED.digits), NUMBERS = TRAINED.numbers && decode(TRAINED.numbers);

/** 5×5 convolution and activation: maps h×w -> maps (h - 4)×(w - 4); map o reads the maps table[o]. */
function convolve(maps, [h, w], table, {weight, bias}, activate) {
  const height = h - 4, width = w - 4, size = height * width;
  const result = new Float32Array(table.length * size);
  let kernel = 0;
  table.forEach((from, o) => {
    const sums = new Float64Array(size).fill(bias[o]);
    for (const map of from) {
      for (let i = 0; i < 5; i++) {
        for (let j = 0; j < 5; j++, kernel++) {
          const factor = weight[kernel];
          for (let y = 0, to = 0; y < height; y++) {
            let at = (map * h + i + y) * w + j;
            for (let x = 0; x < width; x++) sums[to++] += factor * maps[at++];
          }
        }
      }
    }
    sums.forEach((sum, at) => { result[o * size + at] = activate(sum); });
  });
  return result;
}

/** Patches of 2×2, every second row and every `step`-th column: summed, times coefficient, plus bias, activated. */
function subsample(maps, [h, w], {coefficient, bias}, activate, step = 2) {
  const height = h / 2, width = Math.floor((w - 2) / step) + 1;
  const result = new Float32Array(bias.length * height * width);
  for (let map = 0, to = 0; map < bias.length; map++) {
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++, to++) {
        const patch = (map * h + 2 * y) * w + step * x;
        const sum = maps[patch] + maps[patch + 1] + maps[patch + w] + maps[patch + w + 1];
        result[to] = activate(coefficient[map] * sum + bias[map]);
      }
    }
  }
  return result;
}

/** Full connection: units -> bias.length weighted sums. */
function connect(units, {weight, bias}) {
  return bias.map((sum, o) => {
    for (let i = 0; i < units.length; i++) sum += weight[o * units.length + i] * units[i];
    return sum;
  });
}

const all = (count) => Array.from({length: count}, (_, i) => i);
const READS_INPUT = all(6).map(() => [0]), READS_S4 = all(120).map(() => all(16));

/** Grey levels Uint8Array(784), 0 background to 255 ink -> the ten logits and the maps of every layer. */
function forward(image) {
  const input = new Float32Array(1024).fill(-0.1);
  for (let y = 0; y < 28; y++) {
    for (let x = 0; x < 28; x++) input[(y + 2) * 32 + x + 2] = image[y * 28 + x] * (1.275 / 255) - 0.1;
  }
  return statesOf(input, DIGITS);
}

/** The logits and the maps of every layer of a network, for an input of 32×32. */
function statesOf(input, network) {
  const {activate} = network;
  const c1 = convolve(input, [32, 32], READS_INPUT, network.c1, activate);
  const s2 = subsample(c1, [28, 28], network.s2, activate);
  const c3 = convolve(s2, [14, 14], TABLE_I, network.c3, activate);
  const s4 = subsample(c3, [10, 10], network.s4, activate);
  const c5 = convolve(s4, [5, 5], READS_S4, network.c5, activate);
  const f6 = connect(c5, network.f6).map(activate);
  const logits = connect(f6, network.output);
  return {logits, maps: {input, c1, s2, c3, s4, c5, f6}};
}

/** A line, Uint8Array of 32 rows of w levels, as the network sees it. */
const inputOf = (line) => Float32Array.from(line, (level) => level * (1.275 / 255) - 0.1);

/** The eleven logits at each place of a line, two pixels apart, as sweep in reading/sweep.py computes them. */
function sweep(line, w) {
  const {activate, c5} = NUMBERS, halved = Math.floor((w - 4) / 2);
  const c1 = convolve(inputOf(line), [32, w], READS_INPUT, NUMBERS.c1, activate);
  const s2 = subsample(c1, [28, w - 4], NUMBERS.s2, activate);
  const c3 = convolve(s2, [14, halved], TABLE_I, NUMBERS.c3, activate);
  const s4 = subsample(c3, [10, halved - 4], NUMBERS.s4, activate, 1);  // at every column
  const width = halved - 5, places = width - 8;
  const window = new Float32Array(400), result = [];
  for (let place = 0; place < places; place++) {
    for (let row = 0, to = 0; row < 80; row++) {  // 16 maps of 5 rows; C5 reads every second column
      for (let j = 0; j < 5; j++) window[to++] = s4[row * width + place + 2 * j];
    }
    result.push(connect(connect(connect(window, c5).map(activate), NUMBERS.f6).map(activate), NUMBERS.output));
  }
  return result;
}

function softmax(logits) {
  const most = Math.max(...logits);
  const powers = Array.from(logits, (logit) => Math.exp(logit - most));
  const total = powers.reduce((a, b) => a + b);
  return powers.map((power) => power / total);
}
