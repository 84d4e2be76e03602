/* Times, countdowns and progress: the one thing that changes without the server. */

import { $, $$ } from "./dom.js";

let ahead = 0; // how far the server's clock is ahead of this one, ms

/* Take over what the server says the time is. */
export function setClock(at) {
  ahead = Date.parse(at) - Date.now();
}

const today = (at) => at.toDateString() === new Date().toDateString();
const two = (n) => String(n).padStart(2, "0");

export function clock(at, form) {
  const parts = { hour: "2-digit", minute: "2-digit", hourCycle: "h23" };
  if (form === "clock") parts.second = "2-digit";
  const time = at.toLocaleTimeString([], parts);
  if (today(at)) return time;
  return `${at.toLocaleDateString([], { day: "numeric", month: "short" })} ${time}`;
}

function lasted(seconds) {
  if (seconds < 10) return `${Math.max(0, seconds).toFixed(1)} s`;
  const whole = Math.round(seconds);
  const [minutes, hours] = [Math.floor(whole / 60), Math.floor(whole / 3600)];
  const both = (most, unit, rest, small) => `${most} ${unit}${rest ? ` ${rest} ${small}` : ""}`;
  if (whole < 60) return `${whole} s`;
  if (hours < 1) return both(minutes, "min", whole % 60, "s");
  if (hours < 48) return both(hours, "h", minutes % 60, "min");
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

function countdown(ms) {
  const left = Math.max(0, Math.round(ms / 1000));
  const [hours, minutes, seconds] = [Math.floor(left / 3600), Math.floor(left / 60) % 60, left % 60];
  return hours ? `${hours}:${two(minutes)}:${two(seconds)}` : `${minutes}:${two(seconds)}`;
}

export function tick() {
  const now = Date.now() + ahead;
  const left = (one) => Date.parse(one.dateTime) - now;
  for (const one of $$("time[data-as=left]")) one.textContent = countdown(left(one));
  for (const one of $$("time[data-as=ago]")) one.textContent = lasted(-left(one) / 1000);
  for (const bar of $$("svg[data-began]")) {
    const share = Math.min(0.98, (now - Date.parse(bar.dataset.began)) / 1000 / bar.dataset.usual);
    $(".done", bar).setAttribute("width", Math.round(1000 * share));
  }
}

/* Say of which zone all times are, which each says by itself alone where no script runs. */
export function tellZone() {
  const named = new Intl.DateTimeFormat([], { timeZoneName: "short" }).formatToParts();
  const place = $("#zone");
  if (place) place.textContent = named.find((part) => part.type === "timeZoneName").value;
}

/* Make what the server sent this browser's own: local times, what only a script can use. */
export function settle(within) {
  for (const one of $$("time[data-as=clock], time[data-as=minute]", within)) {
    const at = new Date(one.dateTime);
    one.textContent = clock(at, one.dataset.as);
    one.title = `${at.toLocaleString([], { timeZoneName: "short" })} · ${one.dateTime}`;
  }
  for (const one of $$(".follow, [data-hello]", within)) one.hidden = false;
  tick();
}

document.addEventListener("drawn", (event) => settle(event.target));
setInterval(tick, 1000);
