"use strict";
// What the report's explorer and the live page share: elements, colours of the theme, places of samples.
// A plain script, so that the report can carry it inline: it leaves one name, nadDraw.
const nadDraw = (() => {
  const SVG = "http://www.w3.org/2000/svg";
  const SIDE = 400, MARGIN = 24;

  function make(tag, attributes = {}, text = "", space = SVG) {
    const element = document.createElementNS(space, tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    if (text) element.textContent = text;
    return element;
  }

  const html = (tag, attributes, text) => make(tag, attributes, text, "http://www.w3.org/1999/xhtml");
  const count = (value) => value.toLocaleString("en-US");
  const theme = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  function row(texts, tag) {
    const line = html("tr");
    line.append(...texts.map((t) => (typeof t === "string" ? html(tag, {}, t) : t)));
    return line;
  }

  // Colours from --low to --high, for shares from 0 to 1. The theme is read once for many.
  function ramp() {
    const [low, high] = [theme("--low"), theme("--high")].map((hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16)));
    return (share) => `rgb(${low.map((v, i) => Math.round(v + share * (high[i] - v))).join(",")})`;
  }

  // The least value has the colour --low, the largest --high, and what is not known its own.
  function shades(values) {
    const known = values.filter((v) => v !== null);
    const [least, most] = [Math.min(...known), Math.max(...known)];
    const [at, unknown] = [ramp(), theme("--ungraded")];
    return values.map((v) => (v === null ? unknown : at(most > least ? (v - least) / (most - least) : 0.5)));
  }

  // From [-1, 1] to a square picture of SIDE units with room for a mark at its edge.
  const framed = (v) => SIDE / 2 + v * (SIDE / 2 - MARGIN);

  // Points that coincide are spread in a spiral, so that each can be seen and hit.
  function spread(spots, near = 4) {
    const seen = new Map();
    return spots.map(([x, y]) => {
      const key = `${Math.round(x / near)},${Math.round(y / near)}`;
      const k = seen.get(key) || 0;
      seen.set(key, k + 1);
      return [x + 6 * Math.sqrt(k) * Math.cos(2.4 * k), y + 6 * Math.sqrt(k) * Math.sin(2.4 * k)];
    });
  }

  // A sample: a mark that has a name; `chosen` draws the ring of a selector's choice around it.
  function dress(group, mark, tip, chosen, radius = 10) {
    mark.classList.add("mark");
    group.replaceChildren(make("title", {}, tip), mark);
    if (chosen) group.append(make("circle", { class: "chosen", r: radius }));
    return group;
  }

  return Object.freeze({ SIDE, make, html, count, theme, row, ramp, shades, framed, spread, dress });
})();
