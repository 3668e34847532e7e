// What the tests share: the server, a network that breaks on demand, sites with other pages, and the browser.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { createServer as createSite } from "node:http";
import { connect, createServer } from "node:net";
import { delimiter, extname, join, normalize } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

import { chromium } from "playwright-core";

const here = fileURLToPath(new URL(".", import.meta.url));
export const root = join(here, "../../..");
const target = process.env.CARGO_TARGET_DIR ?? join(root, "target");
const pictures = join(target, "browser");
/// For failures only: no test that passes waits for it.
export const PATIENCE = 25_000;

// What a test starts is ended behind it, whatever becomes of it; the browser stays for the next.
const started = [];
let browser = null;

// Nor does a server outlive tests that are themselves ended.
const servers = new Set();
process.on("exit", () => { for (const server of servers) server.kill("SIGKILL"); });
for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => process.exit(1));

export async function endAll() {
  for (const end of started.splice(0).reverse()) await end();
}

export async function endBrowser() {
  await browser?.close();
}

/// The server of examples/web with the accounts `user@localhost`, each with the password "secret-of-user".
export class Server {
  static users = ["romeo", "juliet", "mercutio"];

  static async start(...options) {
    const server = new Server();
    server.options = options;
    await server.#run(["--listen", "127.0.0.1:0", ...options]);
    started.push(() => server.kill());
    return server;
  }

  /// Begins anew at the same address, as after a crash: it has forgotten all sessions.
  async restart() {
    await this.kill();
    await this.#run(["--listen", `127.0.0.1:${this.port}`, ...this.options]);
  }

  async #run(options) {
    const accounts = Server.users.flatMap((user) => ["--account", `${user}@localhost:secret-of-${user}`]);
    const program = process.env.WEB_EXAMPLE ?? join(target, "debug/examples/web");
    // The pages as they are, to work on them without building anew.
    const files = process.env.PAGES ? ["--files", process.env.PAGES] : [];
    this.process = spawn(program, [...options, ...accounts, ...files, "--log", process.env.SERVER_LOG ?? "error"],
      { stdio: ["ignore", "pipe", "inherit"] });
    servers.add(this.process);
    for await (const line of createInterface(this.process.stdout)) {
      const address = /^listening on .*:(\d+)$/.exec(line);
      if (address) {
        this.port = Number(address[1]);
        this.process.stdout.resume();
        return;
      }
    }
    throw new Error("the server did not come up");
  }

  async kill() {
    if (this.process.exitCode !== null || this.process.signalCode !== null) return;
    this.process.kill("SIGKILL");
    await once(this.process, "exit");
    servers.delete(this.process);
  }

  get url() {
    return `http://127.0.0.1:${this.port}/`;
  }
}

/// A way to the server that can be cut, or hang, or cut what is idle.
export class Network {
  #pairs = new Set();
  #frozen = false;
  #refuses = false;
  #left = Infinity;

  static async to(port, { idle = 0 } = {}) {
    const network = new Network();
    network.server = createServer((near) => network.#carry(near, port, idle));
    network.server.listen(0, "127.0.0.1");
    await once(network.server, "listening");
    network.url = `http://127.0.0.1:${network.server.address().port}/`;
    started.push(() => {
      network.server.close();
      network.cut();
    });
    return network;
  }

  #carry(near, port, idle) {
    if (this.#refuses) return near.destroy();
    const far = connect(port, "127.0.0.1");
    const pair = [near, far];
    this.#pairs.add(pair);
    const end = () => {
      // Behind a network that hangs, or has hung, nobody hears that the other is gone.
      if (this.#frozen || pair.hung) return;
      for (const socket of pair) socket.destroy();
      this.#pairs.delete(pair);
    };
    for (const [from, to] of [[near, far], [far, near]]) {
      from.on("data", (bytes) => {
        if (this.#frozen || pair.hung) return;
        to.write(bytes.subarray(0, Math.min(bytes.length, this.#left)));
        this.#left -= bytes.length;
        if (this.#left <= 0) this.cut();
      });
      from.on("error", () => {});
      from.on("close", end);
      if (idle > 0) from.setTimeout(idle, end);
    }
  }

  /// Every connection is gone once so many bytes have passed, in whatever direction, be it within a frame.
  cutAfter(bytes) {
    this.#left = bytes;
  }

  /// Every connection is gone at once.
  cut() {
    this.#left = Infinity;
    for (const pair of this.#pairs) for (const socket of pair) socket.destroy();
    this.#pairs.clear();
  }

  /// What is sent vanishes, and no connection says so.
  freeze() {
    this.#frozen = true;
  }

  /// New connections work again. Those that hung are gone, but only the server hears of it.
  thaw() {
    for (const pair of this.#pairs) {
      pair.hung = true;
      pair[1].destroy();
    }
    this.#frozen = false;
  }

  refuse() {
    this.#refuses = true;
    this.cut();
  }

  accept() {
    this.#refuses = false;
  }
}

/// Pages of another origin: `pages` by path, and what is in one of these folders of node_modules.
export async function site(pages, ...folders) {
  const types = { ".js": "text/javascript", ".mjs": "text/javascript", ".css": "text/css", ".json": "application/json",
    ".svg": "image/svg+xml", ".wasm": "application/wasm" };
  const server = createSite(async (request, response) => {
    const path = new URL(request.url, "http://site").pathname;
    let body = pages[path];
    for (const folder of folders) {
      body ??= await readFile(join(here, "node_modules", folder, normalize(path))).catch(() => undefined);
    }
    const type = types[extname(path)] ?? "text/html; charset=utf-8";
    response.writeHead(body === undefined ? 404 : 200, { "content-type": type }).end(body);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  started.push(() => {
    server.closeAllConnections();
    server.close();
  });
  return `http://127.0.0.1:${server.address().port}`;
}

/// A page in a context of its own: nothing is shared with other pages. What it says of errors fails the test.
export async function openPage(url, { desktop = true, dark = false, context = null } = {}) {
  browser ??= await launch();
  const isNew = context === null;
  const view = desktop ? { viewport: { width: 1280, height: 800 } }
    : { viewport: { width: 360, height: 740 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true };
  const colours = dark ? "dark" : "light";
  context ??= await browser.newContext({ ...view, colorScheme: colours, reducedMotion: "reduce", locale: "en-GB" });
  if (isNew) started.push(() => context.close());
  context.setDefaultTimeout(PATIENCE);
  const page = await context.newPage();
  page.troubles = [];
  page.on("pageerror", (error) => page.troubles.push(error.stack));
  await page.goto(url);
  return page;
}

async function launch() {
  const onPath = process.env.PATH.split(delimiter).map((folder) => join(folder, "chromium")).find(existsSync);
  const executablePath = process.env.CHROMIUM ?? onPath;
  // A name that is no loopback address: what comes from there over plain HTTP has no `crypto.subtle`.
  const names = "--host-resolver-rules=MAP chat.test 127.0.0.1";
  return chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-dev-shm-usage", names] });
}

export async function picture(page, name) {
  mkdirSync(pictures, { recursive: true });
  await page.screenshot({ path: join(pictures, `${name}.png`) });
}

/// A port that nobody listens at.
export async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
}

/// Waits until something holds; `what` says what did not.
export async function until(what, holds) {
  const end = Date.now() + PATIENCE;
  for (;;) {
    const found = await holds();
    if (found) return found;
    if (Date.now() > end) throw new Error(`never: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
}
