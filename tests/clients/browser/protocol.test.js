// The protocol code of the chat page, as far as it needs no page.

import assert from "node:assert/strict";
import { createHash, createHmac, pbkdf2Sync } from "node:crypto";
import { test } from "node:test";

import { Management, readCount } from "../../../examples/web/xmpp/management.js";
import { Scram, ScramError } from "../../../examples/web/xmpp/scram.js";
import { hmac, pbkdf2, sha256 } from "../../../examples/web/xmpp/sha256.js";

const bytes = (length, seed) => Uint8Array.from({ length }, (_, at) => (at * 167 + seed * 59 + 13) & 255);
const plain = (buffer) => new Uint8Array(buffer);

test("SHA-256, HMAC and PBKDF2 are those of node, for all lengths around the blocks", () => {
  for (let length = 0; length < 200; length++) {
    const data = bytes(length, length);
    const key = bytes((length * 7) % 150, 1);
    assert.deepEqual(sha256(data), plain(createHash("sha256").update(data).digest()));
    assert.deepEqual(hmac(key, data), plain(createHmac("sha256", key).update(data).digest()));
  }
  for (const rounds of [1, 2, 4096]) {
    const [password, salt] = [bytes(70, 2), bytes(16, 3)];
    assert.deepEqual(pbkdf2(password, salt, rounds), plain(pbkdf2Sync(password, salt, rounds, 32, "sha256")));
  }
});

// RFC 7677 §3.
const NONCE = "rOprNGfwEbeRWgbNEkqO";
const CHALLENGE = `r=${NONCE}%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096`;
const RESPONSE = `c=biws,r=${NONCE}%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=`;
const SUCCESS = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

test("SCRAM-SHA-256 answers as in RFC 7677, with the password and with the keys made of it", () => {
  const first = new Scram("user", { password: "pencil" }, NONCE);
  assert.equal(first.first(), `n,,n=user,r=${NONCE}`);
  assert.equal(first.final(CHALLENGE), RESPONSE);
  first.verify(SUCCESS);
  const second = new Scram("user", { keys: first.keys }, NONCE);
  assert.equal(second.final(CHALLENGE), RESPONSE);
  second.verify(SUCCESS);
});

test("SCRAM refuses a server that is not what it says", () => {
  const begun = () => new Scram("user", { password: "pencil" }, NONCE);
  const refused = [
    CHALLENGE.replace(NONCE, "another"),
    CHALLENGE.replace(/r=[^,]*/, `r=${NONCE}`),
    CHALLENGE.replace("i=4096", "i=1000"),
    CHALLENGE.replace("i=4096", "i=99999999999"),
    CHALLENGE.replace("i=4096", "i=many"),
    `m=ext,${CHALLENGE}`,
    "",
  ];
  for (const challenge of refused) assert.throws(() => begun().final(challenge), ScramError, challenge);
  assert.throws(() => begun().verify(SUCCESS), ScramError);
  const exchange = begun();
  exchange.final(CHALLENGE);
  for (const success of ["", "v=", SUCCESS.replace("6", "7"), "e=other-error"]) {
    assert.throws(() => exchange.verify(success), ScramError);
  }
});

test("a user name is written so that it cannot end its field", () => {
  assert.equal(new Scram("a=b,c", {}, "n").first(), "n,,n=a=3Db=2Cc,r=n");
});

const entry = (id, more) => ({ id, xml: `<message id='${id}'/>`, keep: true, written: true, ...more });
const ids = (entries) => entries.map(({ id }) => id);

test("a count settles what was sent before it, also where it begins anew at 2³²", () => {
  const sm = new Management({ acknowledged: 2 ** 32 - 2, handled: 2 ** 32 - 1 });
  for (const id of ["a", "b", "c"]) sm.push(entry(id));
  assert.deepEqual(ids(sm.settle(2 ** 32 - 1)), ["a"]);
  assert.deepEqual(ids(sm.settle(1)), ["b", "c"]);
  assert.deepEqual(ids(sm.settle(1)), []);
  assert.equal(sm.settle(2), null);
  assert.equal(sm.settle(0), null);
  sm.received();
  assert.equal(sm.handled, 0);
});

test("what a session leaves is told by its last count", () => {
  const with3 = () => {
    const sm = new Management({ id: "x" });
    for (const id of ["a", "b"]) sm.push(entry(id));
    sm.push(entry("presence", { keep: false }));
    sm.push(entry("unsent", { written: false }));
    return sm;
  };
  const known = with3().end(1);
  assert.deepEqual([ids(known.settled), ids(known.again), ids(known.unknown)], [["a"], ["b", "unsent"], []]);
  const unknown = with3().end(null);
  assert.deepEqual([ids(unknown.settled), ids(unknown.again), ids(unknown.unknown)], [[], ["unsent"], ["a", "b"]]);
  const impossible = with3().end(9);
  assert.deepEqual(ids(impossible.unknown), ["a", "b"]);
});

test("a session is the same after it was stored", () => {
  const sm = new Management({ id: "x", handled: 7, acknowledged: 3 });
  sm.push(entry("a"));
  assert.deepEqual(new Management(JSON.parse(JSON.stringify(sm))), sm);
});

test("counts are numbers of 32 bits and nothing else", () => {
  assert.equal(readCount("0"), 0);
  assert.equal(readCount("4294967295"), 2 ** 32 - 1);
  for (const text of ["4294967296", "-1", "1.5", "", null, " 1", "1e3"]) assert.equal(readCount(text), null, text);
});
