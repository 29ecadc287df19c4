// Downloads that are under way or wait, each with a button that ends it, and the newest that have ended.

import { cancelDownload } from "./api.js";
import { each, element, find, say, set } from "./dom.js";
import { Failure } from "./failure.js";
import { ofTotal, rate, seconds } from "./format.js";
import { learnDownload } from "./state.js";

const MOST_ENDED = 3;

const isUnderWay = ({ state }) => state === "queued" || state === "running";

export function drawDownloads({ downloads }) {
  const jobs = downloads ?? [];
  const ended = jobs.filter((job) => !isUnderWay(job)).reverse();
  each(find("download-list"), [...jobs.filter(isUnderWay), ...ended.slice(0, MOST_ENDED)], ({ id }) => id, download);
  find("downloads").hidden = jobs.length === 0;
}

function download(id) {
  const name = element("h3", { tabindex: "-1" }); // takes the focus from a button that goes
  const state = element("span");
  const cancel = element("button", { type: "button" }, "Cancel");
  const bar = element("progress", { class: "download" });
  const line = element("p", { class: "facts" });
  const failure = new Failure();
  cancel.addEventListener("click", () => press(id, cancel, failure));
  const head = element("div", { class: "card-head" }, name, state, element("div", { class: "actions" }, cancel));
  return {
    node: element("li", { class: "card" }, head, bar, line, failure.node),
    update(job) {
      const title = job.file ? `${job.repo}: ${job.file}` : job.repo;
      say(name, title);
      say(state, job.state);
      set(state, "class", `state ${job.state}`);
      set(cancel, "aria-label", `Cancel the download of ${title}`);
      set(bar, "aria-label", `Download of ${title}`);
      if (!isUnderWay(job) && document.activeElement === cancel) name.focus();
      cancel.hidden = bar.hidden = !isUnderWay(job);
      bar.max = Math.max(job.total_bytes, 1);
      bar.value = Math.min(job.done_bytes, bar.max);
      say(line, words(job));
      if (job.error) failure.show(job.error);
    },
  };
}

function words(job) {
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

async function press(id, button, failure) {
  if (button.getAttribute("aria-disabled") === "true") return;
  set(button, "aria-disabled", true);
  failure.show(null);
  try {
    learnDownload(await cancelDownload(id));
  } catch (error) {
    failure.show(error);
  } finally {
    set(button, "aria-disabled", false);
  }
}
