/* What the page does by itself. It draws nothing: when an event says that something changed, the
   part of the page that shows it is asked for again, and taken as the server sends it. */

import { $ } from "./dom.js";
import "./forms.js";
import "./hello.js";
import "./keys.js";
import { begin } from "./live.js";
import "./record.js";
import "./strip.js";
import { settle, tellZone } from "./times.js";

document.documentElement.classList.add("scripted");
settle(document);
tellZone();
if ($("[data-part]")) begin();
