/* What the server tells by events, and whether it still tells anything. */

import { $, $$, ask, parsed } from "./dom.js";
import { isWhole, reader, soil, soilAll, swap, waiting, wake } from "./parts.js";
import { clock, setClock } from "./times.js";

const HEAD_MS = 15_000; // how often hal0's own health is asked for, and with it whether it is there

let source = null;
let lastId = "";
let staleSince = null;

function listen() {
  source?.close();
  source = new EventSource(`/api/v1/events${lastId && `?last_event_id=${encodeURIComponent(lastId)}`}`);
  const on = (name, act) => source.addEventListener(name, (event) => {
    if (event.lastEventId) lastId = event.lastEventId;
    alive();
    act(JSON.parse(event.data));
  });
  on("snapshot", (all) => { setClock(all.at); soilAll(); });
  on("reset", () => { lastId = ""; soilAll(); });
  on("transition", (row) => { ofSlot(row.slot); ofRecord("audit"); });
  on("slot_deleted", () => soil("cards"));
  on("slot", (slot) => ofSlot(slot.name));
  on("job", (job) => { ofSlot(job.slot); ofRecord("jobs"); });
  on("incident", () => { soil("alerts"); ofRecord("incidents"); });
  source.onerror = () => {
    lost();
    if (source.readyState === EventSource.CLOSED) setTimeout(listen, 3000); // refused, not broken
  };
}

function ofSlot(name) {
  const parts = $$(`[data-part][data-slot="${CSS.escape(name)}"]`).filter(isWhole);
  for (const part of parts.length ? parts : $$("#cards")) soil(part.id);
}

const ofRecord = (tab) => $("#record")?.dataset.tab === tab && soil("record");

function alive() {
  staleSince = null;
  tellLive();
}

export function lost() {
  staleSince ??= new Date();
  tellLive();
}

function tellLive() {
  const place = $("#live");
  if (place === null) return;
  const waits = waiting();
  let [state, word] = ["live", "live"];
  if (source.readyState !== EventSource.OPEN) [state, word] = ["off", "not live yet"];
  if (staleSince !== null) [state, word] = ["stale", `stale since ${clock(staleSince, "minute")}`];
  else if (reader.isPaused) [state, word] = ["paused", waits ? "paused, changes wait" : "paused"];
  else if (waits) [state, word] = ["paused", "paused while you read"];
  place.dataset.state = state;
  $(".word", place).textContent = word;
}

export function pause() {
  reader.isPaused = !reader.isPaused;
  tellLive();
  wake();
}

async function lookAtHead() {
  if (document.hidden || $("#head") === null) return;
  try {
    const answer = await ask("/page/head");
    if (answer.ok) swap($("#head"), parsed(await answer.text()).getElementById("head"));
    if (answer.ok && source?.readyState === EventSource.OPEN) alive();
  } catch {
    lost();
  }
}

export function begin() {
  listen();
  $("#live").hidden = false;
  $("#live").addEventListener("click", pause);
  document.addEventListener("looked", tellLive);
  setInterval(tellLive, 1000);
  setInterval(lookAtHead, HEAD_MS);
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) source.close(); // a browser has six lines to one server, for all windows
    else listen();
    wake();
  });
}
