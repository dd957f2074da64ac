"use strict";
// Values under the pointer. All texts go in as text, never as HTML.
(() => {
  const make = (parent, tag, style, text) => {
    const element = document.createElement(tag);
    if (style) element.className = style;
    if (text !== undefined) element.textContent = text;
    parent.append(element);
    return element;
  };
  const nearest = (places, wanted) => {
    let low = 0, high = places.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (places[middle] < wanted) low = middle; else high = middle;
    }
    return wanted - places[low] < places[high] - wanted ? low : high;
  };
  const isOn = (run) => { const box = document.getElementById("run" + run); return !box || box.checked; };

  for (const plot of document.querySelectorAll(".plot")) {
    const data = JSON.parse(plot.dataset.points);
    const hair = make(plot, "div", "hair"), tip = make(plot, "div", "tip");
    hair.hidden = tip.hidden = true;
    const leave = () => { hair.hidden = tip.hidden = true; };
    const show = (event) => {
      const box = plot.getBoundingClientRect();
      const share = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
      const wanted = data.low + share * (data.high - data.low);
      const lines = [];
      let at = null;
      for (const curve of data.curves) {
        if (!curve.x.length || !isOn(curve.r)) continue;
        const place = nearest(curve.x, wanted);
        if (at === null || Math.abs(curve.x[place] - wanted) < Math.abs(at.x - wanted)) at = { x: curve.x[place], b: curve.b };
        lines.push([curve, curve.y[place]]);
      }
      if (at === null) return leave();
      tip.textContent = "";
      const alike = data.curves.every((curve) => curve.b === data.curves[0].b);  // else a step is another one in each run
      const step = alike ? " · step " + Math.round(at.x / at.b).toLocaleString("en") : "";
      make(tip, "p", "soft", at.x.toLocaleString("en") + " samples" + step);
      for (const [curve, value] of lines) make(make(tip, "p", curve.c, curve.n + " "), "b", "", value);
      hair.hidden = tip.hidden = false;
      const left = (at.x - data.low) / (data.high - data.low || 1) * box.width;
      hair.style.left = left + "px";
      tip.style.left = Math.max(-40, Math.min(box.width - tip.offsetWidth, left < box.width / 2 ? left + 10 : left - tip.offsetWidth - 10)) + "px";
    };
    plot.addEventListener("pointermove", show);
    plot.addEventListener("pointerdown", show);
    plot.addEventListener("pointerleave", leave);
  }

  for (const map of document.querySelectorAll(".maps")) {
    const said = map.parentElement.querySelector(".said");
    map.addEventListener("pointerover", (event) => {
      const point = event.target.closest("path[data-s]");
      for (const lit of map.querySelectorAll(".lit")) lit.classList.remove("lit");
      if (!point) return;
      for (const same of map.querySelectorAll(`path[data-s="${point.dataset.s}"]`)) same.classList.add("lit");
      said.textContent = point.querySelector("title").textContent;
    });
  }
})();
