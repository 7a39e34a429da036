// What was typed and is not stored yet must survive a reload, and must not lie readable on the operator's disk (browsers
// write sessionStorage there). It is sealed with a key made from a secret that only the service gives, to this session.

const encoder = new TextEncoder();

/** A box for one browser tab; null where the browser has no cryptography (outside TLS) or the service gives no secret. */
export async function openBox(secret) {
  if (!secret || !globalThis.crypto?.subtle) return null;
  const raw = await crypto.subtle.importKey("raw", encoder.encode(secret), "HKDF", false, ["deriveKey"]);
  const facts = { name: "HKDF", hash: "SHA-256", salt: new Uint8Array(0), info: encoder.encode("llmft console: unsent words") };
  const key = await crypto.subtle.deriveKey(facts, raw, { name: "AES-GCM", length: 256 }, false, ["encrypt", "decrypt"]);
  return { put: (name, value) => put(key, name, value), take: (name) => take(key, name) };
}

let last = Promise.resolve(); // one after the other: what was sealed last stands

function put(key, name, value) {
  const work = async () => {
    const iv = crypto.getRandomValues(new Uint8Array(12));
    const sealed = await crypto.subtle.encrypt({ name: "AES-GCM", iv }, key, encoder.encode(JSON.stringify(value)));
    sessionStorage.setItem(name, toText(iv) + "." + toText(new Uint8Array(sealed)));
  };
  last = last.then(work).catch(() => sessionStorage.removeItem(name)); // no room: what stands there is not the latest
  return last;
}

async function take(key, name) {
  const [iv, sealed] = (sessionStorage.getItem(name) ?? "").split(".");
  if (!sealed) return null;
  try {
    const open = await crypto.subtle.decrypt({ name: "AES-GCM", iv: toBytes(iv) }, key, toBytes(sealed));
    return JSON.parse(new TextDecoder().decode(open));
  } catch {
    sessionStorage.removeItem(name); // of another session: nobody can read it any more
    return null;
  }
}

const toText = (bytes) => btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
const toBytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
