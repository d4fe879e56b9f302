// What comes from the agent: requests with the token, and the stream of events, taken up again for as long as the page is
// open. EventSource can send no token, so the stream is read by fetch.

const KEY = "nettrace-token";
/** The agent sends a line at least every 10 s. */
const SILENCE_MS = 25_000;
const FIRST_WAIT_MS = 1_000;
const LONGEST_WAIT_MS = 15_000;

export const token = {
  get: () => sessionStorage.getItem(KEY),
  set: (value) => sessionStorage.setItem(KEY, value),
  forget: () => sessionStorage.removeItem(KEY),
};

export class Unauthorized extends Error {}

/** A request to the agent. */
export async function ask(path, options = {}) {
  const headers = new Headers(options.headers);
  if (token.get()) headers.set("authorization", `Bearer ${token.get()}`);
  const response = await fetch(path, { ...options, headers, cache: "no-store", credentials: "omit" });
  if (response.status === 401) throw new Unauthorized("the agent wants a token, or another one");
  if (!response.ok) throw new Error((await response.text()).trim() || `status ${response.status}`);
  return response;
}

export const json = async (path) => (await ask(path)).json();

/** The events in pieces of text as they come; yields `[name, data]`. */
export function reader() {
  let rest = "";
  return function* (text) {
    rest += text;
    for (let end = rest.indexOf("\n\n"); end >= 0; end = rest.indexOf("\n\n")) {
      const lines = rest.slice(0, end).split("\n");
      rest = rest.slice(end + 2);
      const of = (name) => lines.find((line) => line.startsWith(`${name}: `))?.slice(name.length + 2);
      if (of("event") && of("data")) yield [of("event"), JSON.parse(of("data"))];
    }
  };
}

/**
 * Follows `/api/live` for good. `on.event(name, data)`, `on.open()` before the first event of each connection,
 * `on.lost(error, wait)` when one broke, and `on.unauthorized()`, after which it waits for what that promises.
 */
export async function follow(on) {
  let wait = FIRST_WAIT_MS;
  for (;;) {
    try {
      await once(on, () => (wait = FIRST_WAIT_MS));
      throw new Error("the agent ended the stream");
    } catch (error) {
      if (error instanceof Unauthorized) {
        await on.unauthorized();
        continue;
      }
      on.lost(error, wait);
      await new Promise((resolve) => setTimeout(resolve, wait));
      wait = Math.min(2 * wait, LONGEST_WAIT_MS);
    }
  }
}

async function once(on, worked) {
  const stop = new AbortController();
  let timer = setTimeout(() => stop.abort(), SILENCE_MS);
  try {
    const response = await ask("/api/live", { signal: stop.signal });
    await on.open();
    const events = reader();
    const decoder = new TextDecoder();
    for (const stream = response.body.getReader(); ; ) {
      const { done, value } = await stream.read();
      if (done) return;
      clearTimeout(timer);
      timer = setTimeout(() => stop.abort(), SILENCE_MS);
      for (const [name, data] of events(decoder.decode(value, { stream: true }))) {
        worked();
        on.event(name, data);
      }
    }
  } finally {
    clearTimeout(timer);
    stop.abort();
  }
}
