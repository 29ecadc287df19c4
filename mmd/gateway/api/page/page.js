// The page at /: draws what is known, whenever it changes, and keeps in touch with the gateway.

import { stayInTouch } from "./connection.js";
import { drawDownloads } from "./downloads.js";
import { drawMemory } from "./memory.js";
import { drawModels } from "./models.js";
import { drawNow } from "./now.js";
import { drawQueue } from "./queue.js";
import { changed, draw, state } from "./state.js";
import { drawSwaps } from "./swaps.js";

const TICK_MS = 1000;

function reveal({ status }) {
  for (const column of document.querySelectorAll(".column")) column.hidden = !status;
}

draw(reveal, drawNow, drawQueue, drawModels, drawDownloads, drawMemory, drawSwaps);
setInterval(() => {
  if (state.status?.starting?.length || state.queue?.turns.length) changed(); // their seconds go on
}, TICK_MS);
stayInTouch();
