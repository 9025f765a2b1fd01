/**
 * Makes a part of a page look like what the server sends now, by changing only what differs: so focus, scrolling, opened
 * details and what was typed stay. Live elements (`<run-status>`, …) keep themselves up to date and are left alone.
 */

const isLive = (node) => node.nodeType === Node.ELEMENT_NODE && node.localName.includes("-");
const isField = (node) => node.nodeType === Node.ELEMENT_NODE && /^(input|textarea|select)$/.test(node.localName);
const key = (node) => (node.nodeType === Node.ELEMENT_NODE ? node.id : "");

/** @param {Node} one @param {Node} other */
function isSame(one, other) {
  if (one.nodeType !== other.nodeType || one.nodeName !== other.nodeName || key(one) !== key(other)) return false;
  if (!isLive(one)) return true;
  return ["run", "batch", "key"].every((name) => one.getAttribute(name) === other.getAttribute(name));
}

/** @param {Element} old @param {Element} fresh */
function morphAttributes(old, fresh) {
  for (const { name } of [...old.attributes]) {
    if (!fresh.hasAttribute(name) && !(name === "open" && old.localName === "details")) old.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) {
    if (name === "open" && old.localName === "details") continue;
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
}

/**
 * The old child that becomes this one. Texts are taken where they are; elements with an id wherever they are; others
 * may be further on, but not beyond one with an id that stays.
 */
function findOld(wanted, place, kept) {
  if (wanted.nodeType !== Node.ELEMENT_NODE) return place && isSame(place, wanted) ? place : null;
  if (kept.has(wanted.id)) return kept.get(wanted.id);
  for (let old = place; old && !kept.has(key(old)); old = old.nextSibling) {
    if (isSame(old, wanted)) return old;
  }
  return null;
}

/** @param {Element} old @param {Element} fresh gives its children away */
export function morphChildren(old, fresh) {
  const kept = new Map(); // by id, those of our children that stay
  for (const wanted of fresh.children) {
    const same = wanted.id ? [...old.children].find((child) => isSame(child, wanted)) : null;
    if (same) kept.set(wanted.id, same);
  }
  let place = old.firstChild;
  for (const wanted of [...fresh.childNodes]) {
    const found = findOld(wanted, place, kept);
    if (!found) {
      old.insertBefore(wanted, place);
      continue;
    }
    while (place && place !== found && !kept.has(key(place))) {
      const gone = place;
      place = place.nextSibling;
      gone.remove();
    }
    if (found === place) place = found.nextSibling;
    else old.insertBefore(found, place);
    morph(found, wanted);
  }
  while (place) {
    const gone = place;
    place = place.nextSibling;
    gone.remove();
  }
}

/** A live element that knows less than the server has no connection of its own. */
const isBehind = (old, fresh) => Number(fresh.dataset.version) > Number(old.dataset.version);

function morph(old, fresh) {
  if (isLive(old)) {
    if (isBehind(old, fresh)) old.replaceWith(fresh);
    return;
  }
  if (isField(old)) return;
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.nodeValue !== fresh.nodeValue) old.nodeValue = fresh.nodeValue;
    return;
  }
  morphAttributes(old, fresh);
  morphChildren(old, fresh);
}

const PROBLEMS = {
  session: "You are logged out. Load the page again to log in.",
  gone: "This is no longer there, or you may not look at it any more. What is shown is old.",
  server: "The server does not answer just now. What is shown may be old.",
};

/** Says what is wrong, or nothing. @param {keyof PROBLEMS | ""} problem */
function say(problem) {
  const place = document.getElementById("rr-problem");
  if (!place) return;
  const words = problem ? PROBLEMS[problem] : "";
  if (place.textContent !== words) place.textContent = words;
  place.hidden = !words;
}

/**
 * Fetches from our own server. Null when there is nothing new to show; then the page says why.
 * @param {string | URL} url
 * @returns {Promise<Response | null>}
 */
export async function ask(url) {
  let response;
  try {
    response = await fetch(url, { credentials: "same-origin", headers: { "X-Requested-With": "fetch" } });
  } catch {
    say("server");
    return null;
  }
  if (response.redirected) say(new URL(response.url).pathname.includes("login") ? "session" : "gone");
  else if (response.status === 403 || response.status === 404) say("gone");
  else if (!response.ok) say("server");
  else {
    say("");
    return response;
  }
  return null;
}

/**
 * @param {Element} target @param {string | URL} url gives the HTML of what is inside
 * @returns {Promise<boolean>} whether it could be had
 */
export async function renew(target, url) {
  const response = await ask(url);
  if (!response) return false;
  const fresh = new DOMParser().parseFromString(await response.text(), "text/html").body;
  morphChildren(target, fresh);
  return true;
}

/**
 * Calls `work` every so many milliseconds while the page is looked at, and once more when it is looked at again.
 * A call waits for the one before it.
 */
export function repeat(work, every) {
  let busy = false;
  const turn = async () => {
    if (busy || document.hidden) return;
    busy = true;
    try {
      await work();
    } finally {
      busy = false;
    }
  };
  const timer = setInterval(turn, every);
  document.addEventListener("visibilitychange", turn);
  return () => {
    clearInterval(timer);
    document.removeEventListener("visibilitychange", turn);
  };
}
