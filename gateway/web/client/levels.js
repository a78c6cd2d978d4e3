// Price levels as words: of an update, read in place in the frame that brought them, and of a book,
// kept in order. `wire.js` makes `Levels`, `view.js` keeps `Ladder`s. Never a double where order or
// equality is decided.

import { mantissa, toNumber, toText } from "./decimal.js";

/** Words of a level: price low and high, quantity low and high. */
export const LEVEL_WORDS = 4;

/** Levels of one side, best first. */
export class Levels {
  /** `first` is the word at which the best begins, `step` the words from one to the next. */
  constructor(words, first, length, priceScale, qtyScale, step = LEVEL_WORDS) {
    this.words = words;
    this.first = first;
    this.step = step;
    this.length = length;
    this.priceScale = priceScale;
    this.qtyScale = qtyScale;
  }

  price(index) {
    const at = this.#at(index);
    return toNumber(this.words[at + 1], this.words[at], this.priceScale);
  }

  qty(index) {
    const at = this.#at(index);
    return toNumber(this.words[at + 3], this.words[at + 2], this.qtyScale);
  }

  priceScaled(index) {
    const at = this.#at(index);
    return mantissa(this.words[at + 1], this.words[at]);
  }

  qtyScaled(index) {
    const at = this.#at(index);
    return mantissa(this.words[at + 3], this.words[at + 2]);
  }

  priceText(index) {
    const at = this.#at(index);
    return toText(this.words[at + 1], this.words[at], this.priceScale);
  }

  qtyText(index) {
    const at = this.#at(index);
    return toText(this.words[at + 3], this.words[at + 2], this.qtyScale);
  }

  at(index) {
    const from = index < 0 ? this.length + index : index;
    if (!(from >= 0 && from < this.length)) return undefined;
    return {
      price: this.price(from),
      qty: this.qty(from),
      priceText: this.priceText(from),
      qtyText: this.qtyText(from),
    };
  }

  columns(limit = this.length) {
    const length = Math.min(limit, this.length);
    const price = new Float64Array(length);
    const qty = new Float64Array(length);
    for (let index = 0; index < length; index += 1) {
      price[index] = this.price(index);
      qty[index] = this.qty(index);
    }
    return { price, qty };
  }

  /** The same levels, which nothing changes any more. */
  copy() {
    const words = new Int32Array(this.length * LEVEL_WORDS);
    for (let index = 0; index < this.length; index += 1) {
      const at = this.first + index * this.step;
      words.set(this.words.subarray(at, at + LEVEL_WORDS), index * LEVEL_WORDS);
    }
    return new Levels(words, 0, this.length, this.priceScale, this.qtyScale);
  }

  *[Symbol.iterator]() {
    for (let index = 0; index < this.length; index += 1) yield this.at(index);
  }

  toJSON() {
    return Array.from({ length: this.length }, (_, index) => [this.priceText(index), this.qtyText(index)]);
  }

  #at(index) {
    if (!(index >= 0 && index < this.length)) {
      throw new RangeError(`expected an index below ${this.length}; ${index} came`);
    }
    return this.first + index * this.step;
  }
}

/** What a side of a book cannot be told: whose fault it is stands in the message. */
export class LevelsBroken extends Error {}

/** One side of a book, changed by what the gateway says. */
export class Ladder extends Levels {
  #sign;

  /** `sign` is 1 where the highest price is best, -1 where the lowest is. */
  constructor(sign) {
    // The best stands last, so that what changes most moves least.
    super(new Int32Array(32 * LEVEL_WORDS), -LEVEL_WORDS, 0, 0, 0, -LEVEL_WORDS);
    this.#sign = sign;
  }

  /** Takes over a whole side, best first. */
  replace(levels) {
    this.priceScale = levels.priceScale;
    this.qtyScale = levels.qtyScale;
    this.#resize(0);
    this.#reserve(levels.length);
    for (let index = levels.length - 1, to = 0; index >= 0; index -= 1, to += LEVEL_WORDS) {
      const from = levels.first + index * levels.step;
      const { words } = levels;
      if (to > 0 && this.#order(to - LEVEL_WORDS, words[from + 1], words[from]) >= 0) {
        throw new LevelsBroken("the gateway sent a whole side that is not best first");
      }
      for (let word = 0; word < LEVEL_WORDS; word += 1) this.words[to + word] = words[from + word];
    }
    this.#resize(levels.length);
  }

  /** Applies changes: a quantity is absolute, and 0 removes. */
  change(levels) {
    if (levels.length === 0) return;
    if (this.length === 0) {
      this.priceScale = levels.priceScale;
      this.qtyScale = levels.qtyScale;
    }
    if (levels.priceScale !== this.priceScale || levels.qtyScale !== this.qtyScale) {
      throw new LevelsBroken("the gateway sent a change in other scales than the book that it changes");
    }
    const { words } = levels;
    for (let index = 0, from = levels.first; index < levels.length; index += 1, from += levels.step) {
      this.#set(words[from], words[from + 1], words[from + 2], words[from + 3]);
    }
  }

  #set(priceLo, priceHi, qtyLo, qtyHi) {
    const at = this.#find(priceHi, priceLo);
    const end = this.length * LEVEL_WORDS;
    const isHeld = at < end && this.words[at] === priceLo && this.words[at + 1] === priceHi;
    if (qtyLo === 0 && qtyHi === 0) {
      if (!isHeld) throw new LevelsBroken("the gateway removed a level that the book does not hold");
      this.words.copyWithin(at, at + LEVEL_WORDS, end);
      this.#resize(this.length - 1);
      return;
    }
    if (!isHeld) {
      this.#reserve(this.length + 1);
      this.words.copyWithin(at + LEVEL_WORDS, at, end);
      this.words[at] = priceLo;
      this.words[at + 1] = priceHi;
      this.#resize(this.length + 1);
    }
    this.words[at + 2] = qtyLo;
    this.words[at + 3] = qtyHi;
  }

  /** The word at which a price stands, or would. */
  #find(priceHi, priceLo) {
    let low = 0;
    let high = this.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#order(middle * LEVEL_WORDS, priceHi, priceLo) < 0) low = middle + 1;
      else high = middle;
    }
    return low * LEVEL_WORDS;
  }

  /** Below 0: the level at this word is worse than the price. */
  #order(at, priceHi, priceLo) {
    const hi = this.words[at + 1];
    const difference = hi === priceHi ? (this.words[at] >>> 0) - (priceLo >>> 0) : hi - priceHi;
    return this.#sign * difference;
  }

  #reserve(length) {
    if (length * LEVEL_WORDS <= this.words.length) return;
    const words = new Int32Array(Math.max(length * LEVEL_WORDS, this.words.length * 2));
    words.set(this.words);
    this.words = words;
  }

  #resize(length) {
    this.length = length;
    this.first = (length - 1) * LEVEL_WORDS;
  }
}
