/* Forms are sent, and questions asked, without leaving the page. */

import { $, $$, ask, notify, parsed } from "./dom.js";
import { lost } from "./live.js";
import { soilAll } from "./parts.js";
import { fieldsOf, show } from "./record.js";

export async function question(path) {
  const answer = await ask(path);
  const text = await answer.text();
  if (!answer.ok) return notify(text);
  $("#ask").replaceChildren(...parsed(text).body.children);
  $("#ask").showModal();
}

document.addEventListener("submit", async (event) => {
  const { target: form, submitter: by } = event;
  if ("plain" in form.dataset) return;
  const path = by?.getAttribute("formaction") ?? form.getAttribute("action");
  if (form.method === "get") {
    if (!("filter" in form.dataset) && !("ask" in (by?.dataset ?? {}))) return;
    event.preventDefault();
    if ("filter" in form.dataset) return show(new URL(`/?${fieldsOf(form)}`, location));
    return question(`${path}?${fieldsOf(form)}`);
  }
  event.preventDefault();
  if (by) by.disabled = true;
  try {
    const answer = await ask(path, { method: "POST", body: fieldsOf(form, by) });
    notify(await answer.text());
    $("#ask").close();
  } catch {
    lost();
  } finally {
    if (by) by.disabled = false;
    $$("#record input:checked:not(#follow)").forEach((box) => { box.checked = false; });
    soilAll();
  }
});

document.addEventListener("click", (event) => {
  if (event.defaultPrevented || event.button || event.ctrlKey || event.metaKey || event.shiftKey) return;
  const link = event.target.closest("a");
  if (link === null || link.hasAttribute("download")) return;
  if ("close" in link.dataset && $("#ask").open) $("#ask").close();
  else if ("ask" in link.dataset) question(link.href);
  else if (link.pathname === "/" && link.search && $("#record")) show(new URL(link.href));
  else return;
  event.preventDefault();
});
