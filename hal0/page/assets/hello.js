/* Says hello to a slot, and shows what it answers while it comes. */

import { $ } from "./dom.js";

const MOST_TOKENS = 200;

document.addEventListener("submit", async (event) => {
  const { target: form, submitter: by } = event;
  if (!("hello" in form.dataset)) return;
  event.preventDefault();
  const said = $("#said");
  said.hidden = false;
  said.className = "";
  said.textContent = "…";
  by.disabled = true;
  try {
    let text = "";
    for await (const piece of answers(form.dataset.hello, form.elements.text.value)) {
      text += piece;
      said.textContent = text;
    }
    if (text === "") said.textContent = "It answered, and said nothing.";
  } catch (error) {
    said.className = "problem";
    said.textContent = error.message;
  } finally {
    by.disabled = false;
  }
});

async function* answers(model, content) {
  const messages = [{ role: "user", content }];
  const body = JSON.stringify({ model, messages, stream: true, max_tokens: MOST_TOKENS });
  const headers = { "Content-Type": "application/json" };
  const answer = await fetch("/v1/chat/completions", { method: "POST", headers, body });
  if (!answer.ok) throw new Error(toldBy(await answer.json()));
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (let next = await reader.read(); !next.done; next = await reader.read()) {
    const lines = (rest + next.value).split("\n");
    rest = lines.pop();
    for (const line of lines) if (line.startsWith("data: {")) yield pieceOf(JSON.parse(line.slice(6)));
  }
}

const toldBy = (problem) => problem.error?.message ?? problem.detail ?? "hal0 could not answer";

function pieceOf(told) {
  if (told.error) throw new Error(toldBy(told));
  return told.choices?.[0]?.delta?.content ?? "";
}
