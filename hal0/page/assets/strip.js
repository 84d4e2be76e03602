/* A strip is zoomed by drawing over it. */

document.addEventListener("pointerdown", (down) => {
  const drawing = down.target.closest(".strip svg");
  if (drawing === null || down.button) return;
  down.preventDefault();
  const strip = drawing.closest(".strip"), box = drawing.getBoundingClientRect();
  const place = (event) => Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
  const [from, to] = [Date.parse(strip.dataset.from), Date.parse(strip.dataset.to)];
  const picking = document.createElementNS("http://www.w3.org/2000/svg", "rect");
  const began = place(down);
  strip.closest("[data-part]")?.setAttribute("data-picking", "");
  const stretch = (event) => [Math.min(began, place(event)), Math.max(began, place(event))];
  const draw = (event) => {
    const [left, right] = stretch(event);
    const shape = { class: "picking", x: 1000 * left, width: 1000 * (right - left), height: 14 };
    for (const [name, value] of Object.entries(shape)) picking.setAttribute(name, value);
    drawing.append(picking);
  };
  addEventListener("pointermove", draw);
  addEventListener("pointerup", (up) => {
    removeEventListener("pointermove", draw);
    strip.closest("[data-part]")?.removeAttribute("data-picking");
    const [left, right] = stretch(up);
    picking.remove();
    if ((right - left) * box.width < 4) return; // a click, which the link takes
    addEventListener("click", (click) => click.preventDefault(), { once: true, capture: true });
    const at = (share) => encodeURIComponent(new Date(from + share * (to - from)).toISOString());
    location = `${strip.pathname}?from=${at(left)}&to=${at(right)}`;
  }, { once: true });
});
