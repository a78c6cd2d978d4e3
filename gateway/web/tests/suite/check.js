// What a case says must hold, alike in Node and in a browser.

export function ok(condition, what) {
  if (!condition) throw new Error(`it does not hold that ${what}`);
}

export function equal(came, expected, what) {
  const [one, other] = [JSON.stringify(came), JSON.stringify(expected)];
  if (one !== other) throw new Error(`${what}: expected ${other}; ${one} came`);
}

/** What an action throws or rejects with. */
export async function thrown(action) {
  try {
    await action();
  } catch (error) {
    return error;
  }
  throw new Error("an error was expected; none came");
}

const PATIENCE_MS = 30_000;

/** Waits for a condition, which may be asynchronous; gives what it gave. */
export async function until(what, condition, patienceMs = PATIENCE_MS) {
  const end = performance.now() + patienceMs;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (performance.now() >= end) throw new Error(`waited in vain until ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
