// Ask, watch, stop.
import { Picture } from "./picture.js";
import { fromLink, offer, request, toLink } from "./settings.js";
import { live, Refused, settings } from "./stream.js";

const { count } = nadDraw;
const $ = (id) => document.getElementById(id);
const state = { server: null, key: "", running: null, picture: null, account: null };

const say = (text) => { $("status").textContent = text; };

function complain(error) {
  $("error").textContent = error.message;
  $("error").hidden = false;
  if (!(error instanceof Refused)) throw error; // a fault of this page: the console shall have it whole
  if (error.status !== 401) return;
  $("key-row").hidden = false;
  $("key").focus();
}

function calm() {
  $("error").hidden = true;
}

// The form needs to know the model; with a key, once there is one.
async function meet() {
  if (state.server) return;
  const server = await settings(state.key);
  offer(server);
  fromLink();
  state.server = server;
  $("model").textContent = server.model;
  $("weak").hidden = !server.weak;
  if (server.weak) $("weak").textContent = `${server.model} is a small model that runs anywhere: its answers are weak, and often wrong.`;
  relink();
}

function relink() {
  $("link").href = toLink();
}

function running(control) {
  state.running = control;
  $("ask").setAttribute("aria-disabled", String(control !== null));
  const held = [$("ask"), $("stop")].includes(document.activeElement);
  $("stop").disabled = control === null;
  if (held) (control ? $("stop") : $("ask")).focus();
}

async function ask() {
  if (state.running) return;
  calm();
  const control = new AbortController();
  running(control);
  try {
    await meet();
    if (!$("form").reportValidity()) return;
    const body = request(state.server.model);
    history.replaceState(null, "", toLink());
    await watch(body, control.signal);
  } catch (error) {
    if (error.name === "AbortError") {
      say("Stopped. The server has dropped the work.");
    } else {
      say("");
      complain(error);
    }
  } finally {
    control.abort(); // whatever ended it: nothing goes on without a reader
    running(null);
    $("answer").removeAttribute("aria-busy");
  }
}

async function watch(body, signal) {
  clear();
  say("Waiting for the server…");
  for await (const [name, data] of live(body, state.key, signal)) draw[name](data);
}

function clear() {
  for (const id of ["work", "cost", "samples", "answer-hint"]) $(id).hidden = true;
  $("counts").textContent = "";
  state.picture = state.account = null;
  $("answer").replaceChildren(document.createElement("span"), document.createTextNode(""));
  $("answer").firstChild.className = "prefix";
  $("answer").setAttribute("aria-busy", "true");
}

const draw = {
  accepted({ n, stop_at, seed }) {
    state.picture = new Picture(n, Number(stop_at) || null);
    state.account = { n, seed, stop: Number(stop_at), prefix: 0 };
    $("work").hidden = false;
    say("The server has the question; it begins when it is its turn…");
  },

  progress(data) {
    if (state.picture.winner !== null) return;
    if (state.picture.position === 0) say(data.n === 1 ? "Writing one answer…" : `Sampling ${count(data.n)} answers…`);
    const { n, position, distinct, computed, unfinished } = data;
    const of = state.account.stop ? ` of ${count(state.account.stop)}` : "";
    const ended = n - unfinished ? `, ${count(n - unfinished)} at their end` : "";
    $("counts").textContent = `Token ${count(position)}${of}. ${count(distinct)} different texts among ${count(n)} samples${ended}. ${count(computed)} tokens computed.`;
    state.picture.progress(data);
  },

  selected(data) {
    state.picture.selected(data);
    if (data.index === null) return;
    state.picture.table(data);
    // What the cut left of a character is completed by what comes after it.
    state.account.prefix = data.candidates.length > 1 ? data.candidates[data.index].text.replace(/\ufffd+$/, "").length : 0;
    const fate = data.candidates.length > 1 ? "; the others are dropped" : "";
    const note = data.note ? ` (${data.note})` : "";
    say(`Sample ${data.index} is chosen after ${count(data.position)} tokens${note}${fate}. It is written to its end…`);
  },

  text({ text, rank }) {
    if (rank !== 0) return;
    const [prefix, rest] = $("answer").childNodes;
    const left = Math.max(0, state.account.prefix - prefix.textContent.length);
    if (left) prefix.append(text.slice(0, left));
    rest.appendData(text.slice(left));
    $("answer-hint").hidden = state.account.prefix === 0;
  },

  finished({ result, cost }) {
    const { n, seed } = state.account;
    const percent = `${(100 * cost.share).toFixed(cost.share < 0.1 ? 1 : 0)}\u00a0%`;
    const full = n === 1 ? "one answer" : `${count(n)} full answers of this length`;
    const longer = cost.share > 1 ? ", since other samples were longer" : "";
    const seconds = Object.values(result.timing).reduce((sum, s) => sum + s, 0).toFixed(1);
    $("cost-text").textContent = `${count(cost.computed_tokens)} tokens computed in ${seconds} s; ${full} have ${count(cost.full_tokens)}. That is ${percent}${longer}. The seed was ${seed}.`;
    const most = Math.max(cost.computed_tokens, cost.full_tokens);
    $("cost-own").style.width = `${(100 * cost.computed_tokens) / most}%`;
    $("cost-full").style.width = `${(100 * cost.full_tokens) / most}%`;
    $("cost-full-name").textContent = n === 1 ? "one answer" : `${count(n)} full answers`;
    $("cost").hidden = false;
    say(`Done: ${percent} of the tokens of ${full}.`);
  },
};

function stop() {
  if (state.running) state.running.abort();
}

function start() {
  $("form").addEventListener("submit", (e) => { e.preventDefault(); ask(); });
  // A field in closed settings could not be shown to be wrong.
  $("form").addEventListener("invalid", (e) => { if ($("settings").contains(e.target)) $("settings").open = true; }, true);
  $("form").addEventListener("input", relink);
  $("form").addEventListener("change", relink);
  $("key").addEventListener("input", (e) => { state.key = e.target.value.trim(); });
  $("key").addEventListener("change", () => meet().then(calm, complain));
  $("question").addEventListener("keydown", (e) => {
    if (e.key !== "Enter" || e.shiftKey || e.isComposing) return;
    e.preventDefault();
    $("form").requestSubmit();
  });
  document.addEventListener("keydown", (e) => { if (e.key === "Escape") stop(); });
  $("stop").addEventListener("click", stop);
  for (const example of document.querySelectorAll(".example")) {
    example.addEventListener("click", () => {
      if (state.running) return;
      $("question").value = example.textContent;
      relink();
      $("form").requestSubmit();
    });
  }
  $("copy").hidden = !navigator.clipboard; // it is there on https and on this machine only
  $("copy").addEventListener("click", () => navigator.clipboard.writeText($("link").href).then(() => say("The link is copied."), complain));
  addEventListener("hashchange", () => { fromLink(state.server ? undefined : []); relink(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => state.picture?.draw());
  fromLink([]);
  meet().catch(complain);
}

start();
