// SHA-256, HMAC and PBKDF2. Browsers have them in `crypto.subtle`, but not for pages that come over plain HTTP.

const WORDS = 16; // of a block

// The first 32 bits behind the point of the square and cube roots of the first primes (FIPS 180-4 §4.2.2, §5.3.3).
const fraction = (x) => ((x - Math.floor(x)) * 2 ** 32) | 0;
const primes = [];
for (let n = 2; primes.length < 64; n++) if (primes.every((prime) => n % prime)) primes.push(n);
const K = Int32Array.from(primes, (prime) => fraction(Math.cbrt(prime)));
const INITIAL = Int32Array.from(primes.slice(0, 8), (prime) => fraction(Math.sqrt(prime)));

const rotate = (x, n) => (x >>> n) | (x << (32 - n));
const schedule = new Int32Array(64);

/// Takes the block of 16 words at `at` into the state.
function compress(state, words, at = 0) {
  const w = schedule;
  for (let t = 0; t < 64; t++) {
    if (t < WORDS) {
      w[t] = words[at + t];
      continue;
    }
    const x = w[t - 15];
    const y = w[t - 2];
    const s0 = rotate(x, 7) ^ rotate(x, 18) ^ (x >>> 3);
    const s1 = rotate(y, 17) ^ rotate(y, 19) ^ (y >>> 10);
    w[t] = w[t - 16] + s0 + w[t - 7] + s1;
  }
  let [a, b, c, d, e, f, g, h] = state;
  for (let t = 0; t < 64; t++) {
    const s1 = rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25);
    const t1 = (h + s1 + ((e & f) ^ (~e & g)) + K[t] + w[t]) | 0;
    const s0 = rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22);
    const t2 = (s0 + ((a & b) ^ (a & c) ^ (b & c))) | 0;
    h = g;
    g = f;
    f = e;
    e = (d + t1) | 0;
    d = c;
    c = b;
    b = a;
    a = (t1 + t2) | 0;
  }
  state[0] += a;
  state[1] += b;
  state[2] += c;
  state[3] += d;
  state[4] += e;
  state[5] += f;
  state[6] += g;
  state[7] += h;
}

/// Hashes what follows `before` bytes that the state has seen.
function finish(state, bytes, before = 0) {
  const blocks = Math.ceil((bytes.length + 9) / 64);
  const words = new Int32Array(blocks * WORDS);
  bytes.forEach((byte, at) => { words[at >> 2] |= byte << (24 - 8 * (at & 3)); });
  words[bytes.length >> 2] |= 0x80 << (24 - 8 * (bytes.length & 3));
  words[words.length - 1] = (before + bytes.length) * 8;
  for (let at = 0; at < words.length; at += WORDS) compress(state, words, at);
  return state;
}

const toBytes = (state) => Uint8Array.from({ length: 32 }, (_, at) => state[at >> 2] >>> (24 - 8 * (at & 3)));

export const sha256 = (bytes) => toBytes(finish(INITIAL.slice(), bytes));

/// The states in which the inner and the outer hash of a key begin.
function keyed(key) {
  const short = key.length > 64 ? sha256(key) : key;
  return [0x36, 0x5c].map((pad) => {
    const block = new Int32Array(WORDS).fill(pad * 0x01010101);
    short.forEach((byte, at) => { block[at >> 2] ^= byte << (24 - 8 * (at & 3)); });
    const state = INITIAL.slice();
    compress(state, block);
    return state;
  });
}

export function hmac(key, bytes) {
  const [inner, outer] = keyed(key);
  return toBytes(finish(outer, toBytes(finish(inner, bytes, 64)), 64));
}

/// PBKDF2 with HMAC-SHA-256 and one block of output (RFC 8018 §5.2), which RFC 5802 calls `Hi`.
export function pbkdf2(password, salt, iterations) {
  const [inner, outer] = keyed(password);
  // A digest as the only block behind a key: 8 words, the mark of the end, the length in bits.
  const block = new Int32Array(WORDS);
  block[8] = 0x80 << 24;
  block[15] = (64 + 32) * 8;
  const state = new Int32Array(8);
  const hash = (begin) => {
    state.set(begin);
    compress(state, block);
    block.set(state);
  };
  block.set(finish(inner.slice(), Uint8Array.of(...salt, 0, 0, 0, 1), 64));
  hash(outer);
  const result = block.slice(0, 8);
  for (let round = 1; round < iterations; round++) {
    hash(inner);
    hash(outer);
    for (let at = 0; at < 8; at++) result[at] ^= block[at];
  }
  return toBytes(result);
}
