/* What keys do; the foot of the page names them. */

import { $, $$ } from "./dom.js";
import { question } from "./forms.js";
import { pause } from "./live.js";
import { wake } from "./parts.js";

function move(step) {
  const rows = $$("#record tbody tr[id]");
  const at = rows.findIndex((row) => row.classList.contains("at"));
  const next = rows[Math.min(rows.length - 1, Math.max(0, at + step))];
  rows[at]?.classList.remove("at");
  next?.classList.add("at");
  next?.scrollIntoView({ block: "nearest" });
}

const KEYS = {
  "/": () => $("#filter")?.focus(),
  j: () => move(1),
  k: () => move(-1),
  o: () => {
    const path = $("tr.at")?.dataset.row;
    if (path) location = path;
  },
  x: () => $("tr.at input")?.click(),
  r: () => {
    const box = $("tr.at input[name=job]");
    if (box) question(`/page/ask/retry?job=${box.value}`);
  },
  p: pause,
  "?": () => {
    const keys = $(".keys").cloneNode(true);
    keys.hidden = false;
    keys.classList.add("panel");
    $("#ask").replaceChildren(keys);
    $("#ask").showModal();
  },
  Escape: () => { $("tr.at")?.classList.remove("at"); wake(); },
};

if ($("#record")) $(".keys").hidden = false;

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const isTyping = event.target.matches("input:not([type=checkbox]), textarea, select");
  if (isTyping && event.key === "Escape") return event.target.blur();
  if (isTyping || $("#ask").open || !(event.key in KEYS)) return;
  event.preventDefault();
  KEYS[event.key]();
});
