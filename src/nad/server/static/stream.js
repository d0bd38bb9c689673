// The server's answers: JSON, or named server-sent events as they come. Errors are its own one line.

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

// What the network refuses is a TypeError; an abort is not.
async function reached(promise) {
  try {
    return await promise;
  } catch (error) {
    throw error instanceof TypeError ? new Refused(0, "the server cannot be reached; is it still running?") : error;
  }
}

async function ask(path, key, options = {}) {
  const headers = { ...options.headers };
  if (!/^[!-~]*$/.test(key)) throw new Refused(401, "an API key has letters, digits and ASCII signs only, and no spaces");
  if (key) headers.Authorization = `Bearer ${key}`;
  const response = await reached(fetch(path, { ...options, headers, cache: "no-store" }));
  if (!response.ok) throw new Refused(response.status, await said(response));
  return response;
}

async function said(response) {
  try {
    return (await response.json()).error.message;
  } catch {
    return `the server answered with status ${response.status}`; // a proxy before it, perhaps
  }
}

export const settings = async (key) => (await ask("api/settings", key)).json();

// Yields [name, data]. Leaving the loop, or the signal, hangs up: the server then drops the work.
export async function* live(body, key, signal) {
  const options = { method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" }, signal };
  const response = await ask("api/live", key, options);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  while (true) {
    const { done, value } = await reached(reader.read());
    if (done) break;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const fields = Object.fromEntries(part.split("\n").map((line) => line.split(/: (.*)/s, 2)));
      if (!("event" in fields)) continue; // a comment that keeps the connection alive
      const data = JSON.parse(fields.data);
      if (fields.event === "error") throw new Refused(200, data.error.message);
      yield [fields.event, data];
      if (fields.event === "finished") return;
    }
  }
  throw new Refused(200, "the connection ended before the answer did; ask again");
}
