// The search box: a text → the instruments that it may mean → the one that was chosen.
//
// A combobox as the ARIA practices describe it: the focus stays in the input, arrows move through the list.

const SHOWN_MAX = 40;

/** The instruments that have every word of the query, those that begin with it first. */
export function find(instruments, query) {
  const words = query.toLowerCase().split(/[\s/]+/).filter(Boolean);
  const found = [];
  for (const instrument of instruments) {
    // What a venue does not list is left out, and found by nobody.
    const text = [instrument.symbol, instrument.base, instrument.quote, instrument.kind].filter(Boolean).join(" ").toLowerCase();
    if (!words.every((word) => text.includes(word))) continue;
    const begins = words.length === 0 || [instrument.native, instrument.base, instrument.symbol].some((name) => name?.toLowerCase().startsWith(words[0]));
    found.push([begins ? 0 : 1, instrument]);
  }
  // The sort is stable: within a rank the gateway's own order stays.
  return found.sort(([one], [other]) => one - other).map(([, instrument]) => instrument);
}

export class Search {
  #instruments = [];
  #found = [];
  #active = -1;

  /** `onOpen()` when somebody begins to search, and the newest instruments are of use. */
  constructor(input, list, { isShown, onChoose, onOpen }) {
    Object.assign(this, { input, list, isShown, onChoose });
    input.addEventListener("input", () => this.#fill());
    input.addEventListener("focus", () => {
      onOpen();
      this.#fill();
    });
    input.addEventListener("blur", () => this.#close());
    input.addEventListener("keydown", (event) => this.#key(event));
    // Before the input loses the focus and the list goes.
    list.addEventListener("pointerdown", (event) => {
      event.preventDefault();
      const option = event.target.closest("[role=option]");
      if (option?.dataset.index) this.#choose(Number(option.dataset.index));
    });
  }

  /** Somebody searches. */
  get isOpen() {
    return !this.list.hidden;
  }

  take(instruments) {
    this.#instruments = instruments;
    if (!this.isOpen) return;
    const active = this.#found[this.#active]?.symbol;
    this.#fill();
    if (active === undefined) return;
    // Who is on the way through the list stays there.
    this.#active = this.#found.findIndex(({ symbol }) => symbol === active);
    this.#mark();
  }

  #fill() {
    const all = find(this.#instruments, this.input.value);
    this.#found = all.slice(0, SHOWN_MAX);
    this.#active = this.#found.length > 0 && this.input.value ? 0 : -1;
    const options = this.#found.map((instrument, index) => {
      const option = document.createElement("li");
      option.role = "option";
      option.id = `found-${index}`;
      option.dataset.index = index;
      const add = (tag, text) => (option.appendChild(document.createElement(tag)).textContent = text);
      add("b", instrument.native);
      add("span", [instrument.venue, instrument.kind].filter(Boolean).join(" · "));
      add("small", this.isShown(instrument.symbol) ? "on screen" : instrument.state === "live" ? "" : instrument.state);
      return option;
    });
    if (all.length > SHOWN_MAX) options.push(note(`${all.length - SHOWN_MAX} more: type on`));
    if (all.length === 0) options.push(note(this.#instruments.length === 0 ? "The list of instruments has not come yet" : `Nothing is called “${this.input.value}”`));
    this.list.replaceChildren(...options);
    this.list.hidden = false;
    this.input.setAttribute("aria-expanded", "true");
    this.#mark();
  }

  #mark() {
    for (const option of this.list.children) option.setAttribute("aria-selected", String(Number(option.dataset.index) === this.#active));
    const active = this.list.children[this.#active];
    if (active) {
      this.input.setAttribute("aria-activedescendant", active.id);
      active.scrollIntoView({ block: "nearest" });
    } else {
      this.input.removeAttribute("aria-activedescendant");
    }
  }

  #close() {
    this.list.hidden = true;
    this.input.setAttribute("aria-expanded", "false");
    this.input.removeAttribute("aria-activedescendant");
  }

  #choose(index) {
    const instrument = this.#found[index];
    if (!instrument) return;
    this.input.value = "";
    this.input.blur();
    this.onChoose(instrument);
  }

  #key(event) {
    const count = this.#found.length;
    if (event.key === "ArrowDown" && count > 0) this.#active = (this.#active + 1) % count;
    else if (event.key === "ArrowUp" && count > 0) this.#active = (this.#active + count - (this.#active < 0 ? 0 : 1)) % count;
    else if (event.key === "Enter") return this.#choose(Math.max(0, this.#active));
    else if (event.key === "Escape") return this.input.blur();
    else return undefined;
    event.preventDefault();
    return this.#mark();
  }
}

function note(text) {
  const item = document.createElement("li");
  item.className = "note";
  item.textContent = text;
  return item;
}
