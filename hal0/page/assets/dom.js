/* Where things are in the document, and how a part of it is asked of the server. */

export const $ = (what, within = document) => within.querySelector(what);
export const $$ = (what, within = document) => [...within.querySelectorAll(what)];
export const parsed = (text) => new DOMParser().parseFromString(text, "text/html");

export async function ask(path, options = {}) {
  const headers = { Accept: "text/html", "Hal0-Fragment": "yes", ...options.headers };
  const answer = await fetch(path, { ...options, headers, credentials: "same-origin" });
  if (answer.status === 401) location.reload(); // to the form to sign in
  return answer;
}

/* Show the notice that an answer carries, for a while. */
export function notify(text) {
  const notice = $(".notice", parsed(text));
  if (notice === null) return;
  $("#notices").append(notice);
  const isBad = notice.classList.contains("refused");
  setTimeout(() => notice.remove(), isBad ? 20_000 : 5000);
}
