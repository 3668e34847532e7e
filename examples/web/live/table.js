// The table of sessions and streams: a row each, which stays the same element while it is there.

import { bytes, element, rate, say, time } from "./format.js";

const STATES = ["available", "bound", "hibernating", "authenticated", "unauthenticated", "closing"];
/** What is too much, and shown so: bytes that wait, and milliseconds unacknowledged. */
const MUCH = { waiting: 512 * 1024, unacknowledged: 60_000 };
/** Less is what there always is. */
const SOME = { waiting: 8 * 1024, unacknowledged: 5000 };

export class Table {
  constructor(body, onEnd) {
    this.body = body;
    this.onEnd = onEnd;
    this.rows = new Map();
    this.counted = new Map();
    this.sort = { key: "since", down: true };
  }

  /** Shows these, and no others. */
  show(sessions, streams, at) {
    const items = [...sessions.map((one) => this.session(one, at)), ...streams.map((one) => stream(one))];
    const seen = new Set(items.map((item) => item.id));
    for (const id of this.counted.keys()) if (!seen.has(id)) this.counted.delete(id);
    for (const [id, row] of this.rows) {
      if (!seen.has(id)) {
        this.leave(row.node);
        row.node.remove();
        this.rows.delete(id);
      }
    }
    this.body.querySelectorAll(".skeleton").forEach((row) => row.remove());
    // While somebody is about to press a button, no other row comes under the finger.
    const held = this.body.matches(":hover") || this.body.contains(document.activeElement);
    if (!held) items.sort((a, b) => this.compare(a, b));
    let place = this.body.firstElementChild;
    for (const item of items) {
      let row = this.rows.get(item.id);
      if (!row) {
        row = this.row(item);
        this.rows.set(item.id, row);
        this.body.insertBefore(row.node, held ? null : place);
      } else if (!held) {
        if (row.node === place) place = place.nextElementSibling;
        else this.body.insertBefore(row.node, place);
      }
      update(row, item);
    }
  }

  /** Whoever is at this row by keyboard goes on at the next. */
  leave(node) {
    if (!node.querySelector(":focus-visible")) return;
    const near = node.nextElementSibling ?? node.previousElementSibling;
    (near?.querySelector("button") ?? this.body.closest("section")).focus();
  }

  /** A session with its rates, from its counters of the look before. */
  session(one, at) {
    const id = `session ${one.number}`;
    const before = this.counted.get(id);
    this.counted.set(id, { at, received: one.received, sent: one.sent });
    // The counters wrap at 2^32.
    const each = (name) => (before ? ((one[name] - before[name]) >>> 0) / Math.max(0.2, (at - before.at) / 1000) : 0);
    const [, account, resource] = one.jid.match(/^([^/]*)(\/.*)?$/s);
    return { ...one, id, name: one.jid, account, resource: resource ?? "", in: each("received"), out: each("sent") };
  }

  compare(a, b) {
    const { key, down } = this.sort;
    const of = (item) => (key === "state" ? STATES.indexOf(item.state) : (item[key] ?? -1));
    const [x, y] = [of(a), of(b)];
    const order = typeof x === "string" ? x.localeCompare(y) : x - y;
    return (down ? -order : order) || a.id.localeCompare(b.id, "en", { numeric: true });
  }

  row(item) {
    const node = element("tr");
    const cell = (className, label) => {
      const made = node.appendChild(element("td", className));
      if (label) made.dataset.label = label;
      return made;
    };
    const name = cell("name");
    name.title = item.name;
    if (item.account === undefined) {
      name.append(element("span", "stream", item.name));
    } else {
      name.append(element("b", "", item.account), element("span", "", item.resource));
    }
    const chip = cell("state").appendChild(element("span", "chip"));
    const cells = {
      since: cell("number since"),
      in: cell("number in", "In/s"),
      out: cell("number out", "Out/s"),
      waiting: cell("number waiting", "Waiting"),
      unacknowledged: cell("number unacknowledged", "Unacked"),
    };
    const act = cell("act");
    if (item.account !== undefined) {
      const button = act.appendChild(element("button", "", "End"));
      button.type = "button";
      button.setAttribute("aria-label", `End the session ${item.name}`);
      button.addEventListener("click", () => this.onEnd(item));
    }
    return { node, chip, cells };
  }
}

function stream(one) {
  return { ...one, id: `stream ${one.number}`, name: one.peer, in: 0, out: 0, waiting: 0, unacknowledged: null };
}

function update({ chip, cells }, item) {
  say(chip, item.state);
  if (chip.dataset.state !== item.state) chip.dataset.state = item.state;
  chip.classList.toggle("interested", Boolean(item.interested));
  chip.title = [
    `${item.state} for ${time(item.state_since ?? item.since)}`,
    item.state === "available" && `priority ${item.priority}`,
    item.interested && "has requested its roster (R)",
  ].filter(Boolean).join(", ");
  const { since, unacknowledged, waiting } = item;
  say(cells.since, time(since));
  number(cells.in, item.in > 0.05 ? rate(item.in) : "–", true);
  number(cells.out, item.out > 0.05 ? rate(item.out) : "–", true);
  const [bytesAre, timeIs] = [(than) => waiting >= than.waiting, (than) => (unacknowledged ?? 0) >= than.unacknowledged];
  number(cells.waiting, waiting > 0 ? bytes(waiting) : "–", bytesAre(SOME), bytesAre(MUCH));
  number(cells.unacknowledged, unacknowledged === null ? "–" : time(unacknowledged), timeIs(SOME), timeIs(MUCH));
}

function number(cell, text, isSome, isMuch = false) {
  say(cell, text);
  cell.classList.toggle("none", text === "–");
  cell.classList.toggle("some", isSome && text !== "–");
  cell.classList.toggle("much", isMuch);
}
