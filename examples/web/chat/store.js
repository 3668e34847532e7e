// What a tab keeps over a reload, in its session storage: one part is written when it has changed.

const PREFIX = "chat:";
const SESSION = "session";
const CONTACTS = "contacts";
const MESSAGES = "with:";
/// Of one conversation; all of them share some 5 MiB with what is unacknowledged.
const KEPT = { messages: 300, characters: 200_000 };

/// The storage of this name, or one that keeps nothing where the user allows none.
export function storageOf(name) {
  try {
    return window[name];
  } catch {
    return { getItem: () => null, setItem() {}, removeItem() {} };
  }
}

export class Store {
  #storage;
  #changed = new Set();
  #contactsChanged = false;

  constructor(storage) {
    this.#storage = storage;
  }

  load() {
    const session = this.#read(SESSION);
    if (!session) return null;
    const contacts = this.#read(CONTACTS) ?? [];
    for (const contact of contacts) contact.messages = this.#read(MESSAGES + contact.jid) ?? [];
    return { session, contacts };
  }

  /// The messages with this contact are others than those that are stored.
  touch(jid) {
    this.#changed.add(jid);
  }

  /// Something else about contacts is.
  touchContacts() {
    this.#contactsChanged = true;
  }

  /// Stores all that has changed: messages first, so that nothing counts as handled whose effect is not there.
  save(session, contacts) {
    for (const contact of contacts.values()) {
      if (this.#changed.delete(contact.jid)) this.#write(MESSAGES + contact.jid, newest(contact.messages));
    }
    if (this.#contactsChanged) this.#write(CONTACTS, [...contacts.values()]);
    this.#contactsChanged = false;
    this.#write(SESSION, session);
  }

  clear() {
    this.#changed.clear();
    for (const key of this.#keys()) this.#storage.removeItem(key);
  }

  #read(key) {
    try {
      return JSON.parse(this.#storage.getItem(PREFIX + key));
    } catch {
      return null;
    }
  }

  #write(key, value) {
    const text = JSON.stringify(value);
    try {
      this.#storage.setItem(PREFIX + key, text);
    } catch {
      // Full. What was said before matters less than what is still under way.
      for (const old of this.#keys(PREFIX + MESSAGES)) this.#storage.removeItem(old);
      try {
        this.#storage.setItem(PREFIX + key, text);
      } catch (error) {
        console.warn("a reload of this page will not find all of it:", error.message);
        // Half of it would be worse: counts have to fit what they count.
        if (key === SESSION) this.#storage.removeItem(PREFIX + SESSION);
      }
    }
  }

  #keys(prefix = PREFIX) {
    return Object.keys(this.#storage).filter((key) => key.startsWith(prefix));
  }
}

function newest(messages) {
  let first = messages.length;
  let characters = 0;
  while (first > 0 && messages.length - first < KEPT.messages) {
    characters += messages[first - 1].body.length;
    if (characters > KEPT.characters && first < messages.length) break;
    first--;
  }
  return messages.slice(first);
}
