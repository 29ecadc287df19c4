// Queued and running downloads, each with a button to cancel it, and the newest that have ended.

import { cancelDownload } from "./api.js";
import { element, find, setAttribute, setText, syncViews } from "./dom.js";
import { ErrorBox } from "./error_box.js";
import { ofTotal, rate, seconds } from "./format.js";
import { updateDownload } from "./state.js";

const MAX_ENDED = 3;

const isActive = ({ state }) => state === "queued" || state === "running";

export function drawDownloads({ downloads }) {
  const jobs = downloads ?? [];
  const ended = jobs.filter((job) => !isActive(job)).reverse();
  syncViews(find("download-list"), [...jobs.filter(isActive), ...ended.slice(0, MAX_ENDED)], ({ id }) => id, downloadCard);
  find("downloads").hidden = jobs.length === 0;
}

function downloadCard(id) {
  const name = element("h3", { tabindex: "-1" }); // gets the focus when its button disappears
  const state = element("span");
  const cancel = element("button", { type: "button" }, "Cancel");
  const bar = element("progress", { class: "download" });
  const line = element("p", { class: "facts" });
  const errorBox = new ErrorBox();
  cancel.addEventListener("click", () => press(id, cancel, errorBox));
  const head = element("div", { class: "card-head" }, name, state, element("div", { class: "actions" }, cancel));
  return {
    node: element("li", { class: "card" }, head, bar, line, errorBox.node),
    update(job) {
      const title = job.file ? `${job.repo}: ${job.file}` : job.repo;
      setText(name, title);
      setText(state, job.state);
      setAttribute(state, "class", `state ${job.state}`);
      setAttribute(cancel, "aria-label", `Cancel the download of ${title}`);
      setAttribute(bar, "aria-label", `Download of ${title}`);
      if (!isActive(job) && document.activeElement === cancel) name.focus();
      cancel.hidden = bar.hidden = !isActive(job);
      bar.max = Math.max(job.total_bytes, 1);
      bar.value = Math.min(job.done_bytes, bar.max);
      setText(line, details(job));
      if (job.error) errorBox.show(job.error);
    },
  };
}

function details(job) {
  if (job.state === "done") return `registered as ${job.model}`;
  const [speed, left] = [job.rate_bytes_per_second, job.remaining_seconds];
  const words = [
    ofTotal(job.done_bytes, job.total_bytes),
    speed && rate(speed),
    left && `${seconds(Math.ceil(left))} left`,
    job.note,
  ];
  return words.filter(Boolean).join(" · ");
}

async function press(id, button, errorBox) {
  if (button.getAttribute("aria-disabled") === "true") return;
  setAttribute(button, "aria-disabled", true);
  errorBox.show(null);
  try {
    updateDownload(await cancelDownload(id));
  } catch (error) {
    errorBox.show(error);
  } finally {
    setAttribute(button, "aria-disabled", false);
  }
}
