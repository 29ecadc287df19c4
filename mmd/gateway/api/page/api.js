// A client of the management API. Sends the API key that the user has entered, if any.

const KEY = "mmd-key"; // in sessionStorage: removed when the tab is closed

export class ApiError extends Error {
  constructor(status, message, hint, engineLines = []) {
    super(message);
    this.status = status; // 0: no response
    this.hint = hint;
    this.engineLines = engineLines; // the engine's last log lines before it failed
  }
}

export const storeKey = (key) => sessionStorage.setItem(KEY, key);

export async function getJson(path, signal) {
  return (await request(path, { signal })).json();
}

// Returns null if this gateway has no such path.
export async function getJsonIfPresent(path, signal) {
  try {
    return await getJson(path, signal);
  } catch (error) {
    if (error.status === 404) return null;
    throw error;
  }
}

// `verb` is "activate", "sleep" or "stop". Resolves with the new status once it is done.
export async function runVerb(verb, model) {
  const body = JSON.stringify({ model });
  const headers = { "Content-Type": "application/json" };
  return (await request(`/models/${verb}`, { method: "POST", headers, body })).json();
}

export async function endLease(name) {
  return (await request(`/leases/${encodeURIComponent(name)}`, { method: "DELETE" })).json();
}

export async function cancelDownload(id) {
  return (await request(`/hf/downloads/${encodeURIComponent(id)}`, { method: "DELETE" })).json();
}

// Yields the gateway's events as `{kind, data}`. EventSource could not send a key.
export async function* events(signal) {
  const response = await request("/events", { headers: { Accept: "text/event-stream" }, signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let unread = "";
  for (;;) {
    const { value, done } = await reader.read().catch(failUnreachable);
    if (done) return;
    const records = (unread + value).split("\n\n");
    unread = records.pop();
    for (const record of records) {
      const event = parseEvent(record);
      if (event) yield event;
    }
  }
}

function parseEvent(record) {
  const lines = record.split("\n");
  const values = (name) => lines.filter((line) => line.startsWith(`${name}: `)).map((line) => line.slice(name.length + 2));
  const data = values("data").join("\n");
  return data ? { kind: values("event")[0], data: JSON.parse(data) } : null; // a comment has no data
}

async function request(path, options) {
  const key = sessionStorage.getItem(KEY);
  const headers = { ...options.headers, ...(key && { Authorization: `Bearer ${key}` }) };
  const response = await fetch(path, { ...options, headers, cache: "no-store" }).catch(failUnreachable);
  if (!response.ok) throw await apiError(response);
  return response;
}

function failUnreachable() {
  throw new ApiError(0, "the gateway does not respond", "systemctl --user status mmd.service");
}

async function apiError(response) {
  const { error } = await response.json().catch(() => ({})); // a proxy may respond with HTML
  const message = error?.message ?? `the gateway responded with status ${response.status}`;
  return new ApiError(response.status, message, error?.hint ?? "journalctl --user -u mmd.service -n 50", error?.engine_lines);
}
