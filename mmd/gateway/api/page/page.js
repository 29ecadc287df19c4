// The page at /: stays connected to the gateway, and draws the state when it changes.

import { stayConnected } from "./connection.js";
import { drawDevices } from "./devices.js";
import { drawDownloads } from "./downloads.js";
import { drawLeases } from "./leases.js";
import { drawMemory } from "./memory.js";
import { drawModels } from "./models.js";
import { drawNow } from "./now.js";
import { drawQueue } from "./queue.js";
import { drawSetups } from "./setups.js";
import { addViews, redraw, state } from "./state.js";
import { drawSwaps } from "./swaps.js";

const TICK_MS = 1000;

function reveal({ status }) {
  for (const column of document.querySelectorAll(".column")) column.hidden = !status;
}

addViews(reveal, drawNow, drawLeases, drawQueue, drawSetups, drawModels, drawDownloads, drawDevices, drawMemory, drawSwaps);
setInterval(() => {
  if (state.status?.starting?.length || state.queue?.turns.length) redraw(); // their seconds count on
}, TICK_MS);
stayConnected();
