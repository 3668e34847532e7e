// Small charts of the last two minutes, which move as time does.

import { element, say } from "./format.js";

const POINTS = 120;
const HEIGHT = 40;
const SVG = "http://www.w3.org/2000/svg";

const make = (name, attributes) => {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
};

export class Chart {
  /** `series`: a class and a name each; `format` makes text of a value; `least` is the lowest scale. */
  constructor(title, series, format, { least, thousand = 1000 }) {
    Object.assign(this, { format, least, thousand });
    this.node = element("article", "chart");
    const head = element("h3", "", title);
    this.top = head.appendChild(element("span", "top"));
    const plot = make("svg", { class: "plot", viewBox: `0 0 ${POINTS - 1} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" });
    plot.append(make("path", { class: "grid", d: `M0 ${HEIGHT / 2}H${POINTS}` }));
    this.moving = plot.appendChild(make("g", {}));
    const legend = element("ul");
    this.series = series.map(([tone, name]) => {
      const area = this.moving.appendChild(make("path", { class: `area ${tone}` }));
      const line = this.moving.appendChild(make("path", { class: tone }));
      const item = legend.appendChild(element("li", tone, name));
      return { area, line, value: item.appendChild(element("b", "", "–")), points: [] };
    });
    this.node.append(head, plot, legend);
  }

  /** The values of this moment; `null` where nothing is known. */
  push(values) {
    this.series.forEach((one, n) => {
      one.points.push(values[n]);
      // One more than is seen: it is on its way in.
      one.points.splice(0, one.points.length - POINTS - 1);
      if (values[n] !== null) say(one.value, this.format(values[n]));
    });
    this.draw();
  }

  draw() {
    const top = nice(Math.max(this.least, ...this.series.flatMap((one) => one.points)), this.thousand);
    say(this.top, this.format(top));
    for (const { area, line, points } of this.series) {
      const start = POINTS - points.length + 1;
      let [stroke, fill, from] = ["", "", null];
      points.forEach((value, n) => {
        if (value === null) {
          if (from !== null) fill += `V${HEIGHT}H${from}Z`;
          from = null;
          return;
        }
        const at = `${start + n} ${(HEIGHT - 1 - (value / top) * (HEIGHT - 4)).toFixed(2)}`;
        stroke += (from === null ? "M" : "L") + at;
        fill += from === null ? `M${start + n} ${HEIGHT}L${at}` : `L${at}`;
        from ??= start + n;
      });
      if (from !== null) fill += `V${HEIGHT}H${from}Z`;
      line.setAttribute("d", stroke);
      area.setAttribute("d", fill);
    }
    this.move();
  }

  /** Lets the newest point come in within the second until the next. */
  move() {
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.motion?.cancel();
    const to = { transform: "translateX(-1px)" };
    this.motion = this.moving.animate([{ transform: "none" }, to], { duration: still ? 0 : 1050, fill: "forwards" });
  }
}

/** The next of 1, 2, 5, 10, 20 … of its thousands. */
function nice(value, thousand) {
  const unit = thousand ** Math.floor(Math.log(value) / Math.log(thousand));
  const power = 10 ** Math.floor(Math.log10(value / unit)) * unit;
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value * 0.999) ?? value;
}
