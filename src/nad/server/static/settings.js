// The form's fields, and the link that carries them: in the fragment, which a browser sends to no server.

const $ = (id) => document.getElementById(id);
const NAMES = ["n", "stop_at", "selector", "temperature", "max_tokens", "seed"];
const LONGEST = 512; // as `nad generate`
const STOPS = { 8: "8 tokens", 16: "16 tokens", 32: "32 tokens", 64: "64 tokens", 128: "128 tokens", auto: "a settled choice", budget: "a budget of tokens", distinct: "all differ", none: "full answers" };

// A value that is not among the options, say knn:k=5 of a link, becomes one; the server says whether it is any good.
function choose(select, value) {
  const known = Array.from(select.options).some((option) => option.value === value);
  if (!known) select.add(new Option(/^\d+$/.test(value) ? `${value} tokens` : value, value));
  select.value = value;
}

// A vote is counted on full answers.
let needsFull = [];
function settle() {
  if (needsFull.includes($("selector").value)) choose($("stop_at"), "none");
}

function set(name, value) {
  const field = $(name);
  if (field.tagName === "SELECT") choose(field, value);
  else field.value = value;
}

export function offer({ selectors, full, defaults, limits }) {
  $("n").max = limits.n;
  $("max_tokens").max = limits.max_tokens;
  for (const [value, text] of Object.entries(STOPS)) $("stop_at").add(new Option(text, value));
  for (const name of selectors) $("selector").add(new Option(name, name));
  const start = { ...defaults, max_tokens: Math.min(LONGEST, limits.max_tokens), seed: "" };
  for (const name of NAMES) set(name, String(start[name]));
  needsFull = full;
  $("selector").addEventListener("change", settle);
}

export function fromLink(names = NAMES) {
  const link = new URLSearchParams(location.hash.slice(1));
  if (link.has("q")) $("question").value = link.get("q");
  for (const name of names) if (link.has(name)) set(name, link.get(name));
  if (!link.has("stop_at")) settle();
}

export function toLink() {
  const link = new URLSearchParams({ q: $("question").value });
  for (const name of NAMES) if ($(name).value) link.set(name, $(name).value);
  return `#${link}`;
}

export function request(model) {
  const stop = $("stop_at").value;
  return {
    model,
    messages: [{ role: "user", content: $("question").value }],
    temperature: Number($("temperature").value),
    max_tokens: Number($("max_tokens").value),
    ...($("seed").value && { seed: Number($("seed").value) }),
    nad: { n: Number($("n").value), stop_at: /^\d+$/.test(stop) ? Number(stop) : stop, selector: $("selector").value },
  };
}
