// Small things for pages. Text of others goes in as text, never as markup.

export const $ = (id) => document.getElementById(id);

/// An element with these properties (`class`, `aria-…` and `data-…` as attributes) and contents.
export function h(tag, properties = {}, ...contents) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element) element[name] = value;
    else element.setAttribute(name === "class" ? "class" : name, value);
  }
  element.append(...contents.filter((content) => content != null));
  return element;
}

export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `#i-${name}`);
  svg.setAttribute("aria-hidden", "true");
  svg.append(use);
  return svg;
}

/// Sets a text only where it is another, so that nothing is read out twice.
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

const letters = new Intl.Segmenter();

/// Fills a circle with the first letter of a name and the colour of an address (after XEP-0392).
export function avatar(element, label, jid) {
  if (element.dataset.of === `${label} ${jid}`) return;
  element.dataset.of = `${label} ${jid}`;
  let hash = 0;
  for (const char of jid) hash = (hash * 31 + char.codePointAt(0)) >>> 0;
  element.style.setProperty("--hue", hash % 360);
  const [letter] = letters.segment(label.trim() || "?");
  setText(element, letter.segment.toLocaleUpperCase());
}

/// Calls `draw` once before the next picture, however often it is asked for; at once where no picture is drawn.
export function coalesced(draw) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    const run = () => {
      asked = false;
      draw();
    };
    if (document.hidden) setTimeout(run, 250);
    else requestAnimationFrame(run);
  };
}

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const thisYear = new Intl.DateTimeFormat(undefined, { weekday: "long", day: "numeric", month: "long" });
const otherYear = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "long", year: "numeric" });
const short = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });

export const dayOf = (at) => new Date(at).setHours(0, 0, 0, 0);
export const clockTime = (at) => clock.format(at);

export function dayName(at) {
  const days = Math.round((dayOf(Date.now()) - dayOf(at)) / 86_400_000);
  if (days === 0) return "Today";
  if (days === 1) return "Yesterday";
  return (new Date(at).getFullYear() === new Date().getFullYear() ? thisYear : otherYear).format(at);
}

export const shortTime = (at) => (dayOf(at) === dayOf(Date.now()) ? clock : short).format(at);
