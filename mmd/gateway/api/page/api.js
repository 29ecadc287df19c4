// The management API, with the key that the user has given, if the gateway needs one.

const KEY = "mmd-key"; // in sessionStorage: gone when the tab is closed

export class ApiError extends Error {
  constructor(status, message, hint, engineLines = []) {
    super(message);
    this.status = status; // 0: no answer at all
    this.hint = hint;
    this.engineLines = engineLines; // the last that an engine said before it failed
  }
}

export const useKey = (key) => sessionStorage.setItem(KEY, key);

export async function read(path, signal) {
  return (await answer(path, { signal })).json();
}

// null where this gateway has no such path.
export async function readIfThere(path, signal) {
  try {
    return await read(path, signal);
  } catch (error) {
    if (error.status === 404) return null;
    throw error;
  }
}

// `verb` is "activate", "sleep" or "stop"; returns the status that came of it, once it is done.
export async function act(verb, model) {
  const body = JSON.stringify({ model });
  const headers = { "Content-Type": "application/json" };
  return (await answer(`/models/${verb}`, { method: "POST", headers, body })).json();
}

export async function cancelDownload(id) {
  return (await answer(`/hf/downloads/${encodeURIComponent(id)}`, { method: "DELETE" })).json();
}

// What the gateway tells, as `{kind, data}`, until it ends. EventSource cannot send a key.
export async function* events(signal) {
  const response = await answer("/events", { headers: { Accept: "text/event-stream" }, signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let unread = "";
  for (;;) {
    const { value, done } = await reader.read().catch(unreachable);
    if (done) return;
    const records = (unread + value).split("\n\n");
    unread = records.pop();
    for (const record of records) {
      const event = parsed(record);
      if (event) yield event;
    }
  }
}

function parsed(record) {
  const lines = record.split("\n");
  const values = (name) => lines.filter((line) => line.startsWith(`${name}: `)).map((line) => line.slice(name.length + 2));
  const data = values("data").join("\n");
  return data ? { kind: values("event")[0], data: JSON.parse(data) } : null; // without data: a comment
}

async function answer(path, options) {
  const key = sessionStorage.getItem(KEY);
  const headers = { ...options.headers, ...(key && { Authorization: `Bearer ${key}` }) };
  const response = await fetch(path, { ...options, headers, cache: "no-store" }).catch(unreachable);
  if (!response.ok) throw await failure(response);
  return response;
}

function unreachable() {
  throw new ApiError(0, "the gateway does not answer", "systemctl --user status mmd.service");
}

async function failure(response) {
  const { error } = await response.json().catch(() => ({})); // a proxy in between writes pages
  const message = error?.message ?? `the gateway answered ${response.status}`;
  return new ApiError(response.status, message, error?.hint ?? "journalctl --user -u mmd.service -n 50", error?.engine_lines);
}
