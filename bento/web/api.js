// Asks the service: JSON there and back, the API key sent along, and how long it took.
// Every failure is an ApiError that says what was wrong and what helps. Knows no page.

const KEY = "recserve-key";

export class ApiError extends Error {
  constructor(status, message, remedy = "") {
    super([message, remedy].filter(Boolean).join(". ").replaceAll("..", "."));
    this.status = status; // 0: no answer came
  }
}

export const key = {
  get: () => sessionStorage.getItem(KEY),
  set: (text) => sessionStorage.setItem(KEY, text),
  drop: () => sessionStorage.removeItem(KEY),
};

/** {answer, ms} of POST `path` with `body`, or of GET without one. */
export async function ask(path, body, signal) {
  const headers = {};
  if (key.get()) headers.Authorization = `Bearer ${key.get()}`;
  const options = { headers, signal, credentials: "same-origin" };
  if (body !== undefined) {
    options.method = "POST";
    options.body = JSON.stringify(body);
    headers["Content-Type"] = "application/json";
  }
  const began = performance.now();
  let reply, text;
  try {
    reply = await fetch(path, options);
    text = await reply.text();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "The service does not answer", "Is it running?");
  }
  const ms = performance.now() - began;
  if (!reply.ok) throw refused(reply, text);
  return { answer: JSON.parse(text), ms };
}

function refused(reply, text) {
  try {
    const { error } = JSON.parse(text);
    return new ApiError(reply.status, error.message, error.remedy);
  } catch {
    // Not the service itself, but something between it and us.
    return new ApiError(reply.status, `The answer was ${reply.status} ${reply.statusText}`);
  }
}

/** A name for one event: repeats of it are counted once. */
export function eventId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
