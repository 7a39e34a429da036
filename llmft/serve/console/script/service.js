// The service's HTTP API, as docs/serve.md has it.

/** The service answered that it will not. */
export class Refused extends Error {
  constructor(status, error, wait) {
    super(error?.message ?? `HTTP ${status}`);
    this.status = status;
    this.code = error?.code ?? "";
    this.temporary = status === 429 || status === 408 || status >= 500;
    this.wait = Number(wait) || 0; // seconds
  }
}

/** No answer came: no network, or nobody listens. */
export class Unreachable extends Error {
  temporary = true;
  wait = 0;
}

const PATIENCE = 30_000; // milliseconds without an answer
let session = null;

/** Who I am; sends the browser to the sign-in page when a key is needed. */
export async function openSession() {
  try {
    session = await ask("GET", "/v1/session");
  } catch (error) {
    if (error.status !== 401) throw error;
    location.replace(`/sign-in?to=${encodeURIComponent(location.pathname)}`);
    await new Promise(() => {}); // this page is over
  }
  return session;
}

export async function signIn(text) {
  session = await ask("POST", "/v1/session", { key: text });
  return session;
}

export const signOut = () => ask("DELETE", "/v1/session");

/** One request; answers with the JSON, throws Refused or Unreachable. */
export async function ask(method, path, body) {
  const headers = { Accept: "application/json" };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (method !== "GET" && session?.csrf) headers["X-CSRF-Token"] = session.csrf;
  const options = { method, headers, credentials: "same-origin", cache: "no-store", redirect: "error" };
  if (body !== undefined) options.body = JSON.stringify(body);
  let response;
  try {
    response = await fetch(path, { ...options, signal: AbortSignal.timeout(PATIENCE) });
  } catch {
    throw new Unreachable("no answer");
  }
  if (response.status === 204) return null;
  const answer = await response.json().catch(() => null);
  if (!response.ok) throw new Refused(response.status, answer?.error, response.headers.get("Retry-After"));
  return answer;
}

export const post = (path, body = {}) => ask("POST", path, body);
export const get = (path) => ask("GET", path);
export const callPath = (id, rest = "") => `/v1/calls/${encodeURIComponent(id)}${rest}`;

let vocabulary = null;

/** The closed lists, fetched once. */
export async function closedLists() {
  vocabulary ??= await get("/v1/vocabulary");
  return vocabulary;
}
