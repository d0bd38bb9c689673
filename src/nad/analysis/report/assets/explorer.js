"use strict";
// All data are base64 of compressed JSON; all of it reaches the page as text content, never as markup.
(() => {
  const $ = (id) => document.getElementById(id);
  const { make, html, count, theme, row, ramp, shades, framed, spread, dress } = nadDraw;
  const state = { problem: null, serial: 0, number: 0, stop: 0, sample: 0 };

  async function unpack(id) {
    const bytes = Uint8Array.from(atob($(id).textContent), (c) => c.charCodeAt(0));
    const plain = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return JSON.parse(await new Response(plain).text());
  }

  const decode = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));

  const grade = (value) => (value === null ? "not graded" : value ? "correct" : "incorrect");

  function colours() {
    const by = $("colour").value;
    const { correct } = state.problem;
    if (by === "correct") return correct.map((c) => theme(c === null ? "--ungraded" : c ? "--correct" : "--incorrect"));
    return shades(state.problem[by]);
  }

  function legend() {
    const by = $("colour").value;
    const place = $("legend");
    place.replaceChildren();
    const add = (text, cls, style) => {
      if (cls) place.append(html("span", { class: cls }));
      if (style) place.lastChild.style.background = style;
      place.append(text);
    };
    if (by === "correct") {
      const kinds = [[1, "swatch round", "--correct"], [0, "swatch", "--incorrect"], [null, "swatch", "--ungraded"]];
      for (const [value, cls, name] of kinds) {
        const found = state.problem.correct.filter((c) => c === value).length;
        if (found) add(`${grade(value)} (${found})`, cls, theme(name));
      }
      return;
    }
    const known = state.problem[by].filter((v) => v !== null);
    if (!known.length) { add("not recorded"); return; }
    const show = (v) => (by === "entropy" ? `${v.toFixed(3)} nats` : `${count(v)} tokens`);
    add(show(Math.min(...known)));
    add(show(Math.max(...known)), "ramp");
  }

  function places() {
    const { xy, n } = state.problem;
    const at = (i) => framed(xy[i] / 127.5 - 1);
    return spread(Array.from({ length: n }, (_, i) => 2 * (state.stop * n + i)).map((i) => [at(i), at(i + 1)]));
  }

  function shape(correct) {
    if (correct === 1) return make("circle", { r: 6 });
    if (correct === 0) return make("rect", { x: -5, y: -5, width: 10, height: 10 });
    return make("path", { d: "M0,-7L6.5,5H-6.5Z" });
  }

  function drawMap() {
    const { n, correct, chosen, lengths, sizes } = state.problem;
    const held = $("map").contains(document.activeElement);
    const winners = new Map();
    for (const [name, at] of Object.entries(chosen)) winners.set(at[state.stop], [...(winners.get(at[state.stop]) || []), name]);
    const colour = colours();
    const spots = places();
    const points = Array.from({ length: n }, (_, i) => {
      const names = winners.get(i) || [];
      const label = `sample ${i}: ${grade(correct[i])}, ${count(lengths[i])} tokens, ${count(sizes[state.stop][i])} neurons`;
      const tip = label + (names.length ? `; chosen by ${names.join(", ")}` : "");
      const chosenHere = i === state.sample;
      const group = make("g", {
        transform: `translate(${spots[i][0].toFixed(1)},${spots[i][1].toFixed(1)})`, tabindex: chosenHere ? 0 : -1,
        role: "button", "aria-pressed": chosenHere, "aria-label": tip, "data-sample": i, class: chosenHere ? "selected" : "",
      });
      const mark = shape(correct[i]);
      mark.setAttribute("fill", colour[i]);
      return dress(group, mark, tip, names.length > 0);
    });
    const rank = (i) => (i === state.sample ? 2 : winners.has(i) ? 1 : 0); // what is named lies on top
    const layers = Array.from(points.keys()).sort((a, b) => rank(a) - rank(b));
    $("map").replaceChildren(...layers.map((i) => points[i]));
    if (held) points[state.sample].focus({ preventScroll: true });
  }

  function agreement(i, j) {
    if (i === j) return 1;
    const { agreement: values, n } = state.problem;
    const [a, b] = i < j ? [i, j] : [j, i];
    return values[state.stop * ((n * (n - 1)) / 2) + a * n - (a * (a + 1)) / 2 + b - a - 1] / 255;
  }

  function drawMatrix() {
    const { n, order } = state.problem;
    const cell = Math.max(2, Math.floor(512 / n));
    const canvas = $("matrix");
    canvas.width = canvas.height = n * cell;
    const context = canvas.getContext("2d");
    const colour = Array.from({ length: 256 }, (_, v) => v / 255).map(ramp());
    let total = 0;
    for (let row = 0; row < n; row++) {
      for (let column = 0; column < n; column++) {
        const value = agreement(order[row], order[column]);
        if (row < column) total += value;
        context.fillStyle = colour[Math.round(255 * value)];
        context.fillRect(column * cell, row * cell, cell, cell);
      }
    }
    const at = order.indexOf(state.sample);
    context.strokeStyle = theme("--incorrect");
    context.lineWidth = 2;
    context.strokeRect(1, at * cell, n * cell - 2, cell);
    const mean = n > 1 ? (total / ((n * (n - 1)) / 2)).toFixed(3) : "–";
    $("matrix-text").textContent = `Mean ${mean}. From 0 (nothing shared) to 1 (the same neurons), samples in one order at every position; the frame is sample ${state.sample}.`;
  }

  function drawSizes() {
    const { n, order, sizes, chosen } = state.problem;
    const now = sizes[state.stop];
    const top = Math.max(...now);
    const width = 400 / n;
    const colour = colours();
    $("sizes").replaceChildren(...order.map((i, column) => {
      const height = (88 * now[i]) / top;
      const bar = make("rect", { x: column * width, y: 90 - height, width: 0.86 * width, height, fill: colour[i], "data-sample": i });
      bar.append(make("title", {}, `sample ${i}: ${count(now[i])}`));
      if (i === state.sample) { bar.setAttribute("stroke", theme("--ring")); bar.setAttribute("stroke-width", "2"); }
      return bar;
    }));
    const fewest = chosen.minact[state.stop];
    $("sizes-text").textContent = `${count(Math.min(...now))} (sample ${fewest}) to ${count(top)}, which is the full height; up to ${count(Math.max(...sizes[sizes.length - 1]))} in full answers. The same order as above.`;
  }

  function drawChoices() {
    const { chosen, correct, sizes } = state.problem;
    const lines = Object.entries(chosen).map(([name, at]) => {
      const i = at[state.stop];
      const cell = html("td");
      const button = html("button", { type: "button", "data-sample": i, "aria-label": `show sample ${i}` }, String(i));
      cell.append(button);
      return row([name, cell, grade(correct[i]), count(sizes[state.stop][i])], "td");
    });
    $("choices").replaceChildren(row(["Selector", "Sample", "Grade", "Neurons"], "th"), ...lines);
  }

  function drawText() {
    const { answers, correct, ends, lengths, prompt, sizes, texts } = state.problem;
    const i = state.sample;
    const answer = answers[i] === null ? "" : `, answer ${answers[i]}`;
    $("sample-title").textContent = `Sample ${i}: ${grade(correct[i])}${answer}, ${count(lengths[i])} tokens, ${count(sizes[state.stop][i])} neurons here`;
    $("prompt").textContent = prompt;
    // Ends count code points. What comes after the stop position is dimmed.
    const points = Array.from(texts[i]);
    const end = ends === null ? points.length : ends[state.stop][i];
    const after = html("span", { class: "after" }, points.slice(end).join(""));
    $("sample-text").replaceChildren(points.slice(0, end).join(""), after);
  }

  function draw() {
    const { n, positions, distinct, computed, lengths } = state.problem;
    const position = positions[state.stop];
    const end = state.stop === positions.length - 1;
    const text = end ? `${count(position)} (end)` : count(position);
    $("stop-text").textContent = text;
    $("stop").setAttribute("aria-valuetext", `${text} tokens`);
    const sampled = lengths.reduce((sum, length) => sum + Math.min(length, position), 0);
    $("account").textContent = `After ${text} tokens: ${distinct[state.stop]} of ${n} prefixes are distinct; ${count(sampled)} tokens sampled, ${count(computed[state.stop])} of them computed.`;
    legend(); drawMap(); drawMatrix(); drawSizes(); drawChoices(); drawText();
  }

  async function load(number) {
    const serial = ++state.serial;
    const [picture, texts] = await Promise.all([unpack(`picture-${number}`), unpack(`texts-${number}`)]);
    if (serial !== state.serial) return; // another problem was chosen meanwhile
    const n = picture.lengths.length;
    state.problem = { ...picture, ...texts, n, xy: decode(picture.xy), agreement: decode(picture.agreement) };
    state.number = number;
    state.stop = Math.min(state.stop, picture.positions.length - 1);
    state.sample = picture.chosen.knn[state.stop];
    $("stop").max = picture.positions.length - 1;
    $("stop").value = state.stop;
    draw();
  }

  function select(sample) {
    state.sample = Number(sample);
    $("sample-text").scrollTop = 0;
    drawMap(); drawMatrix(); drawSizes(); drawText();
  }

  function fail(error) {
    $("account").textContent = `The explorer cannot run in this browser: ${error.message}`;
  }

  async function start() {
    const runs = await unpack("index");
    let number = 0;
    for (const run of runs) {
      const group = html("optgroup", { label: run.label });
      for (const problem of run.problems) {
        const share = problem.correct === null ? "" : ` (${Math.round(100 * problem.correct)} % correct)`;
        group.append(html("option", { value: number++ }, problem.name + share));
      }
      $("problem").append(group);
    }
    $("problem").addEventListener("change", (e) => load(Number(e.target.value)).catch(fail));
    $("colour").addEventListener("change", draw);
    $("stop").addEventListener("input", (e) => { state.stop = Number(e.target.value); draw(); });
    for (const id of ["map", "sizes", "choices"]) {
      $(id).addEventListener("click", (e) => {
        const hit = e.target.closest("[data-sample]");
        if (hit) select(hit.dataset.sample);
      });
    }
    $("map").addEventListener("keydown", (e) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[e.key];
      const { n } = state.problem;
      const target = step ? (state.sample + step + n) % n : { Home: 0, End: n - 1 }[e.key];
      if (target === undefined) return;
      e.preventDefault();
      select(target);
    });
    $("matrix").addEventListener("mousemove", (e) => {
      const [i, j] = cellAt(e);
      $("matrix").title = `samples ${i} and ${j}: S = ${agreement(i, j).toFixed(3)}`;
    });
    $("matrix").addEventListener("click", (e) => select(cellAt(e)[0]));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
    await load(0);
  }

  function cellAt(event) {
    const { n, order } = state.problem;
    const box = $("matrix").getBoundingClientRect();
    const at = (offset, length) => order[Math.min(n - 1, Math.max(0, Math.floor((n * offset) / length)))];
    return [at(event.clientY - box.top, box.height), at(event.clientX - box.left, box.width)];
  }

  start().catch(fail);
})();
