// A page of another origin: a document without a window on the screen, and a fetch that keeps the rules of browsers for
// requests to other origins, which Node's does not. Import it before React and the hooks.
import { JSDOM } from "jsdom";

const origin = "https://app.example.com";
// "Visual", or document.hidden is true, and the client does not poll.
const dom = new JSDOM('<div id="root"></div>', { url: origin, pretendToBeVisual: true });
globalThis.window = dom.window;
globalThis.document = dom.window.document;
Object.defineProperty(globalThis, "navigator", { value: dom.window.navigator, configurable: true });
process.on("unhandledRejection", () => {}); // which ends Node, and no page: a refused submit() leaves one
globalThis.IS_REACT_ACT_ENVIRONMENT = false;

const SAFE_REQUEST = new Set(["accept", "accept-language", "content-language"]);
const SAFE_ANSWER = [
  "cache-control",
  "content-language",
  "content-length",
  "content-type",
  "expires",
  "last-modified",
  "pragma",
];
const SAFE_METHODS = new Set(["GET", "HEAD", "POST"]);
const SAFE_TYPES = ["application/x-www-form-urlencoded", "multipart/form-data", "text/plain"];
const list = (text) =>
  (text ?? "")
    .split(",")
    .map((part) => part.trim().toLowerCase())
    .filter(Boolean);

const serverFetch = globalThis.fetch;
const blocked = (request, why) => new TypeError(`CORS: ${request.method} ${request.url}: ${why}`);

function allowsOrigin(answer) {
  return ["*", origin].includes(answer.headers.get("access-control-allow-origin"));
}

async function preflight(request, names) {
  const answer = await serverFetch(request.url, {
    method: "OPTIONS",
    headers: {
      origin,
      "access-control-request-method": request.method,
      "access-control-request-headers": names.join(","),
    },
  });
  const methods = list(answer.headers.get("access-control-allow-methods"));
  const allowed = list(answer.headers.get("access-control-allow-headers"));
  if (!answer.ok) throw blocked(request, `the preflight was answered with ${answer.status}`);
  if (!allowsOrigin(answer)) throw blocked(request, "the preflight does not allow the origin");
  if (!SAFE_METHODS.has(request.method) && !methods.includes(request.method.toLowerCase())) {
    throw blocked(request, "the method is not allowed");
  }
  for (const name of names) {
    const covered = allowed.includes(name) || (allowed.includes("*") && name !== "authorization");
    if (!covered) throw blocked(request, `the header ${name} is not allowed`);
  }
}

export async function pageFetch(input, init) {
  const request = new Request(input, init);
  const isSafe = (name) =>
    SAFE_REQUEST.has(name) ||
    (name === "content-type" && SAFE_TYPES.some((type) => request.headers.get(name).startsWith(type)));
  const names = [...request.headers.keys()].filter((name) => !isSafe(name)).toSorted();
  if (names.length || !SAFE_METHODS.has(request.method)) await preflight(request, names);
  request.headers.set("origin", origin);
  const answer = await serverFetch(request);
  if (!allowsOrigin(answer)) throw blocked(request, "the answer does not allow the origin");
  const exposed = new Set([...SAFE_ANSWER, ...list(answer.headers.get("access-control-expose-headers"))]);
  const headers = new Headers([...answer.headers].filter(([name]) => exposed.has(name)));
  return Object.defineProperty(answer, "headers", { value: headers });
}

globalThis.fetch = pageFetch;
dom.window.fetch = pageFetch;
