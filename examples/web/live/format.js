// Numbers as people read them.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

/** A count: exact while that fits. */
export const count = (n) => (n < 100000 ? whole.format(n) : short.format(n));

/** How many in a second. */
export const rate = (n) => (n > 0 && n < 9.95 ? n.toFixed(1) : count(Math.round(n)));

export function bytes(n) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (n >= 1000 && unit < units.length - 1) {
    n /= 1024;
    unit += 1;
  }
  return `${unit > 0 && n < 9.95 ? n.toFixed(1) : whole.format(n)} ${units[unit]}`;
}

/** A time in milliseconds, in its two largest units. */
export function time(ms) {
  const s = Math.floor(ms / 1000);
  if (s < 60) return `${s} s`;
  const [min, h, d] = [Math.floor(s / 60), Math.floor(s / 3600), Math.floor(s / 86400)];
  if (min < 60) return `${min} min`;
  if (h < 24) return `${h} h ${String(min % 60).padStart(2, "0")}`;
  return `${d} d ${h % 24} h`;
}

/** An element with text, never with markup: JIDs are what strangers have chosen. */
export function element(name, className = "", text = "") {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}

/** Sets a text where it differs, so that nothing is laid out again for nothing. */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}
