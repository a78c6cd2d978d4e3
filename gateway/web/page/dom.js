// The few things that everything which touches the document needs.

export const $ = (id) => document.getElementById(id);

/** Sets a text, unless it stands there already: the layout of a page is not for nothing. */
export function set(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Tells people who listen to the page. */
export function speak(text) {
  set($("spoken"), text);
}
