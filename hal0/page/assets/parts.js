/* Which parts of the page are dirty, and when they may be drawn anew: never while they are read.

   The event `drawn` is a part that came, `looked` that everything dirty was looked at. */

import { $, $$, ask, parsed } from "./dom.js";

const LEAST_MS = 900; // between two askings for one part

export const reader = { isPaused: false, follows: true }; // what whoever reads asked for
const dirty = new Map(); // id of a part -> when it may be asked for at the earliest
const asked = new Map(); // id of a part -> when it was asked for last
let timer = null;

export function soil(id) {
  const part = document.getElementById(id);
  if (!part?.dataset.part) return;
  if (!dirty.has(id)) dirty.set(id, Math.max(Date.now() + 60, (asked.get(id) ?? 0) + LEAST_MS));
  wake();
}

export const isWhole = (part) => part.parentElement.closest("[data-part]") === null;
export const soilAll = () => $$("[data-part]").filter(isWhole).forEach((part) => soil(part.id));

export function wake() {
  if (timer !== null || dirty.size === 0) return;
  const next = Math.min(...dirty.values());
  timer = setTimeout(drawWhatMayBe, Math.max(30, next - Date.now()));
}

async function drawWhatMayBe() {
  timer = null;
  const now = Date.now();
  const due = [...dirty].filter(([, at]) => at <= now).map(([id]) => id);
  const held = due.filter((id) => isHeld(document.getElementById(id)));
  for (const id of held) dirty.set(id, now + 500); // look again soon
  await Promise.all(due.filter((id) => !held.includes(id)).map(draw));
  document.dispatchEvent(new Event("looked"));
  wake();
}

/* A part is left alone while somebody reads or uses it. */
function isHeld(part) {
  if (reader.isPaused || document.hidden) return true;
  if (part === null) return false;
  if (part.id === "record" && part.dataset.tab === "audit" && !reader.follows) return true;
  const selection = getSelection();
  const isSelected = !selection.isCollapsed && part.contains(selection.anchorNode);
  const isRead = $("details[open], tbody tr:hover, tr.at, input:checked:not(#follow), select:focus, .fields :focus", part);
  return isSelected || isRead !== null || part.dataset.picking !== undefined;
}

async function draw(id) {
  dirty.delete(id);
  asked.set(id, Date.now());
  const part = document.getElementById(id);
  if (part === null) return;
  try {
    const answer = await ask(part.dataset.part);
    if (answer.status === 404) return part.remove();
    if (!answer.ok) throw new Error(answer.status);
    const fresh = parsed(await answer.text()).getElementById(id);
    if (fresh === null || !part.isConnected) return;
    if (isHeld(part)) dirty.set(id, Date.now() + 500); // somebody began to read meanwhile
    else swap(part, fresh);
  } catch {
    dirty.set(id, Date.now() + 2000);
  }
}

export function swap(part, fresh) {
  const had = part.contains(document.activeElement) ? document.activeElement : null;
  const caret = had?.selectionStart;
  if (had?.id === "filter" && fresh.dataset.tab === part.dataset.tab) {
    $("#filter", fresh)?.replaceWith(had); // with what is typed
  }
  for (const select of $$("select[id]", part)) keepChoice(select, fresh);
  part.replaceWith(fresh);
  fresh.dispatchEvent(new Event("drawn", { bubbles: true }));
  if (had === null) return;
  const action = had.form?.getAttribute("action") ?? had.getAttribute("href");
  const is = `="${CSS.escape(action ?? "")}"]`;
  const same = had.id ? document.getElementById(had.id) : $(`[action${is} button, [href${is}`, fresh);
  same?.focus({ preventScroll: true });
  if (same === had && typeof caret === "number") same.setSelectionRange(caret, caret);
}

/* What somebody chose and did not send yet stays chosen. */
function keepChoice(select, fresh) {
  const same = $(`#${CSS.escape(select.id)}`, fresh);
  const isChosen = !select.options[select.selectedIndex]?.defaultSelected;
  if (same && isChosen) same.value = select.value;
}

/* How many parts changed and are not drawn, for somebody reads them. */
export function waiting() {
  return [...dirty.keys()].filter((id) => isHeld(document.getElementById(id))).length;
}

/* No change of this part is waited for any longer: it was asked for anew. */
export const clean = (id) => dirty.delete(id);
