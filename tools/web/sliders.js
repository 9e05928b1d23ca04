// ------------------------------------------------------------------------------------------- the sliders

const degrees = (v) => `${v}°`, pixels = (v) => `${v} px`, percents = (v) => `${v} %`;
const SLIDERS = {
  rotate: {label: "Rotate", from: -90, to: 90, step: 1, rest: 0, show: degrees},
  scale: {label: "Scale", from: 40, to: 200, step: 1, rest: 100, show: percents},
  right: {label: "Shift right", from: -10, to: 10, step: 0.5, rest: 0, show: pixels},
  down: {label: "Shift down", from: -10, to: 10, step: 0.5, rest: 0, show: pixels},
  gap: {label: "Gap", from: 0, to: 20, step: 1, rest: 6, show: pixels},  // between the digits of a number
  noise: {label: "Noise", from: 0, to: 100, step: 1, rest: 0, show: percents},
};

/** Numbers of mean 0 and variance 1, the same each time: noise that grows with its slider and does not flicker. */
const NOISE = (() => {
  let state = 1998;
  const uniform = () => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0, (state + 0.5) / 2 ** 32);
  const normal = () => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform());
  return Float32Array.from({length: 8191}, normal);
})();

/** A prepared digit, or a line of width w, turned about its centre, scaled, shifted and with noise: Uint8Array. */
function augment(image, {rotate = 0, scale = 100, right = 0, down = 0, noise = 0}, w = 28) {
  const h = image.length / w, x0 = (w - 1) / 2, y0 = (h - 1) / 2;
  let values = Float64Array.from(image);
  if (rotate || scale !== 100 || right || down) {
    const cos = Math.cos(rotate * Math.PI / 180) * 100 / scale, sin = Math.sin(rotate * Math.PI / 180) * 100 / scale;
    const level = (y, x) => y < 0 || y >= h || x < 0 || x >= w ? 0 : image[y * w + x];
    values = values.map((_, i) => {
      let sum = 0;
      for (let part = 0; part < 9; part++) {  // nine points of each pixel
        const x = i % w + (part % 3 - 1) / 3 - x0 - right;
        const y = Math.floor(i / w) + (Math.floor(part / 3) - 1) / 3 - y0 - down;
        const u = cos * x + sin * y + x0, v = cos * y - sin * x + y0;
        const column = Math.floor(u), row = Math.floor(v), du = u - column, dv = v - row;
        sum += (1 - dv) * ((1 - du) * level(row, column) + du * level(row, column + 1));
        sum += dv * ((1 - du) * level(row + 1, column) + du * level(row + 1, column + 1));
      }
      return sum / 9;
    });
  }
  const noisy = (v, i) => v + noise * 1.5 * NOISE[i % NOISE.length];
  return Uint8Array.from(values, (v, i) => Math.min(Math.max(Math.round(noisy(v, i)), 0), 255));
}

const settings = {};

function buildSliders() {
  for (const [name, {label, from, to, step, rest, show}] of Object.entries(SLIDERS)) {
    const id = `${name}-slider`, className = name === "gap" ? "of-line" : "";
    const value = make("output", {htmlFor: id, className});
    const input = make("input", {type: "range", id, className, min: from, max: to, step, defaultValue: rest});
    input.oninput = () => {
      settings[name] = Number(input.value);
      value.textContent = input.ariaValueText = show(settings[name]).replace("-", "−");
      update();
    };
    settings[name] = rest;
    value.textContent = show(rest);
    element("sliders").append(make("label", {htmlFor: id, className, textContent: label}), input, value);
  }
  const reset = make("button", {type: "button", id: "reset", textContent: "Reset"});
  reset.onclick = resetSliders;
  element("sliders").append(reset);
}

function resetSliders() {
  for (const [name, {rest}] of Object.entries(SLIDERS)) {
    const input = element(`${name}-slider`);
    input.value = rest;
    input.oninput();
  }
}
