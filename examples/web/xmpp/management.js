// The counts of stream management (XEP-0198), and what the server has not acknowledged yet. No DOM, no socket.

const wrap = (n) => n >>> 0;

/// An `h` from the wire, or null if it is none.
export const readCount = (text) => (/^\d{1,10}$/.test(text ?? "") && Number(text) < 2 ** 32 ? Number(text) : null);

export class Management {
  /// What the server calls the session, if it can be resumed.
  id = null;
  /// Stanzas that we have handled.
  handled = 0;
  /// Stanzas that the server has acknowledged.
  acknowledged = 0;
  /// Those it has not: `{ id, xml, keep, written }`. What is kept is sent again in a new session.
  queue = [];

  constructor(saved) {
    Object.assign(this, saved);
  }

  /// `<enabled/>` has come: the server counts what it sends from here on.
  enabled(id) {
    this.id = id;
    this.handled = 0;
  }

  received() {
    this.handled = wrap(this.handled + 1);
  }

  push(entry) {
    this.queue.push(entry);
  }

  /// Takes a count of the server's: returns the entries it settles, or null if it counts what was never sent.
  settle(h) {
    const count = wrap(h - this.acknowledged);
    if (count > this.queue.length) return null;
    this.acknowledged = h;
    return this.queue.splice(0, count);
  }

  /// The session is over. Returns what it leaves: the entries that a new session is to send, and those of which nobody
  /// can say whether they have arrived. `h` is the server's last count, or null if it has none.
  end(h) {
    const settled = h === null ? null : this.settle(h);
    const entries = this.queue;
    this.queue = [];
    this.id = null;
    this.acknowledged = 0;
    const lost = (entry) => settled === null && entry.written;
    return {
      settled: settled ?? [],
      again: entries.filter((entry) => entry.keep && !lost(entry)),
      unknown: entries.filter((entry) => entry.keep && lost(entry)),
    };
  }

  toJSON() {
    const { id, handled, acknowledged, queue } = this;
    return { id, handled, acknowledged, queue };
  }
}
