/* The record: tabs, filter and pages, all of them in the address. */

import { $, $$, ask, notify, parsed } from "./dom.js";
import { clean, reader, swap } from "./parts.js";

export const fieldsOf = (form, by) => new URLSearchParams(new FormData(form, by));

export async function show(url, remember = "pushState") {
  const text = await (await ask(`/page/record${url.search}`)).text();
  const fresh = parsed(text).getElementById("record");
  if (fresh === null) return notify(text);
  if (remember) history[remember](null, "", url);
  clean("record");
  swap($("#record"), fresh);
}

function complete(input) {
  const typed = input.value.slice(0, input.value.lastIndexOf(" ") + 1);
  for (const option of $$("#terms option")) {
    option.dataset.term ??= option.value;
    option.value = typed + option.dataset.term;
  }
}

let typing = null;
document.addEventListener("input", (event) => {
  if (event.target.id === "follow") reader.follows = event.target.checked;
  if (event.target.id !== "filter") return;
  complete(event.target);
  clearTimeout(typing);
  typing = setTimeout(() => show(new URL(`/?${fieldsOf(event.target.form)}`, location), "replaceState"), 500);
});
addEventListener("popstate", () => $("#record") && show(new URL(location), null));

document.addEventListener("drawn", () => {
  const [follow, input] = [$("#follow"), $("#filter")];
  if (follow) follow.checked = reader.follows;
  if (input) complete(input);
});
