// The gateway's key, asked for where it is needed.

import { useKey } from "./api.js";
import { find, say } from "./dom.js";

// Returns when the user has given one.
export function askForKey(error) {
  const form = find("key");
  const input = find("key-value");
  say(find("connection"), "Waiting for a key");
  say(find("key-reason"), error.message);
  form.hidden = false;
  input.focus();
  return new Promise((resolve) => {
    form.onsubmit = (submission) => {
      submission.preventDefault();
      useKey(input.value.trim());
      input.value = "";
      form.hidden = true;
      resolve();
    };
  });
}
