// The form that asks for an API key.

import { storeKey } from "./api.js";
import { find, setText } from "./dom.js";

// Resolves when the user has entered a key.
export function askForKey(error) {
  const form = find("key");
  const input = find("key-value");
  setText(find("connection"), "Waiting for a key");
  setText(find("key-reason"), error.message);
  form.hidden = false;
  input.focus();
  return new Promise((resolve) => {
    form.onsubmit = (submission) => {
      submission.preventDefault();
      storeKey(input.value.trim());
      input.value = "";
      form.hidden = true;
      resolve();
    };
  });
}
