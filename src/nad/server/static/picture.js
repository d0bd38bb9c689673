// Points and curves of the samples. Samples with the same tokens so far are one point and one curve.

const { make, html, count, row, shades, framed, spread, dress } = nadDraw;
const $ = (id) => document.getElementById(id);
const LEAST_REACH = 0.1; // the half width of the map at the start, as a distance 1 - S
const WIDTH = 400, HEIGHT = 220;

export class Picture {
  constructor(n, until) {
    Object.assign(this, { n, until, position: 0, reach: LEAST_REACH, winner: null, dots: new Map(), curves: new Map() });
    this.prefix = Array(n).fill(0);
    this.ended = Array(n).fill(false);
    this.points = Array.from({ length: n }, () => [0, 0]);
    this.agreement = Array(n).fill(1);
    this.neurons = Array(n).fill(0);
    this.paths = Array.from({ length: n }, () => [[0, 0]]);
    $("map").replaceChildren();
    $("curves").replaceChildren();
    $("legend").replaceChildren();
    $("curves-text").textContent = "";
  }

  progress(data) {
    this.position = data.position;
    this.prefix = data.prefix;
    if (data.points) this.see(data);
    this.ended = data.ended;
    this.draw();
  }

  see({ points, agreement, neurons }) {
    Object.assign(this, { points, agreement, neurons });
    this.reach = Math.max(this.reach, ...points.flat().map(Math.abs));
    for (let i = 0; i < this.n; i++) if (!this.ended[i]) this.paths[i].push([this.position, neurons[i]]);
  }

  selected(data) {
    this.position = data.position;
    this.winner = data.index;
    this.see(data);
    this.draw();
  }

  groups() {
    const found = new Map();
    this.prefix.forEach((first, i) => found.set(first, [...(found.get(first) || []), i]));
    return found;
  }

  draw() {
    const groups = Array.from(this.groups());
    const colours = shades(groups.map(([first]) => this.agreement[first]));
    const spots = spread(groups.map(([first]) => this.points[first].map((v) => framed(v / this.reach))));
    this.drop(groups);
    groups.forEach(([first, members], g) => {
      const won = this.winner !== null && members.includes(this.winner);
      const lost = this.winner !== null && !won;
      this.point(first, members, spots[g], colours[g], won, lost);
      this.curve(first, won, lost);
    });
    for (const map of [this.dots, this.curves]) {
      const winner = map.get(this.prefix[this.winner]);
      if (winner && winner.nextSibling) winner.parentNode.append(winner); // on top
    }
    this.legend(groups);
  }

  drop(groups) {
    const kept = new Set(groups.map(([first]) => first));
    for (const map of [this.dots, this.curves]) {
      for (const [first, element] of map) {
        if (kept.has(first)) continue;
        element.remove();
        map.delete(first);
      }
    }
  }

  point(first, members, [x, y], colour, won, lost) {
    let dot = this.dots.get(first);
    const radius = 5 * Math.sqrt(members.length);
    if (!dot) {
      dot = make("g", { class: "dot" });
      dress(dot, make("circle", {}), "", false);
      this.dots.set(first, dot);
      $("map").append(dot);
    }
    const mark = dot.querySelector(".mark");
    mark.setAttribute("r", radius.toFixed(1));
    mark.setAttribute("fill", colour);
    dot.style.transform = `translate(${x.toFixed(1)}px, ${y.toFixed(1)}px)`;
    dot.classList.toggle("lost", lost);
    dot.querySelector("title").textContent = this.name(first, members);
    if (won && !dot.querySelector(".chosen")) dot.append(make("circle", { class: "chosen", r: radius + 5 }));
  }

  name(first, members) {
    const who = members.length > 1 ? `${members.length} samples with the same text` : `sample ${first}`;
    return `${who}: ${count(this.neurons[first])} neurons, agreement ${this.agreement[first].toFixed(2)}`;
  }

  curve(first, won, lost) {
    let line = this.curves.get(first);
    if (!line) {
      line = make("path", { class: "curve" });
      this.curves.set(first, line);
      $("curves").append(line);
    }
    const [right, top] = [this.until || Math.max(this.position, 1), Math.max(1, ...this.neurons)];
    const at = ([t, m]) => `${((WIDTH * t) / right).toFixed(1)},${(HEIGHT - 4 - ((HEIGHT - 12) * m) / top).toFixed(1)}`;
    line.setAttribute("d", `M${this.paths[first].map(at).join("L")}`);
    line.classList.toggle("won", won);
    line.classList.toggle("lost", lost);
    $("curves-text").textContent = `A line a distinct prefix, from token 0 to ${count(right)}; full height: ${count(top)} neurons.`;
  }

  legend(groups) {
    const values = groups.map(([first]) => this.agreement[first]);
    const [least, most] = [Math.min(...values).toFixed(2), Math.max(...values).toFixed(2)];
    const won = this.winner === null ? "" : `. The ring is sample ${this.winner}, which was chosen.`;
    $("legend").replaceChildren(`mean agreement with the others: ${least}`, html("span", { class: "ramp" }), `${most}${won}`);
  }

  // The same in words: a line a distinct prefix, the best score first.
  table({ candidates, scores, index }) {
    const groups = Array.from(this.groups());
    const best = (members) => Math.max(...members.map((i) => scores[i] ?? -Infinity));
    groups.sort((a, b) => b[1].includes(index) - a[1].includes(index) || best(b[1]) - best(a[1]));
    const lines = groups.map(([first, members]) => {
      const score = Number.isFinite(best(members)) ? best(members).toFixed(3) : "–";
      const numbers = [score, this.agreement[first].toFixed(3), count(this.neurons[first]), count(candidates[first].tokens)];
      const line = row([members.join(", "), candidates[first].text, ...numbers], "td");
      line.classList.toggle("won", members.includes(index));
      const hot = (on) => [this.dots, this.curves].forEach((map) => map.get(first)?.classList.toggle("hot", on));
      line.addEventListener("pointerenter", () => hot(true));
      line.addEventListener("pointerleave", () => hot(false));
      return line;
    });
    $("samples-title").textContent = `The ${count(groups.length)} distinct prefixes`;
    $("candidates").replaceChildren(row(["Samples", "Text", "Score", "Agreement", "Neurons", "Tokens"], "th"), ...lines);
    $("samples").hidden = false;
  }
}
