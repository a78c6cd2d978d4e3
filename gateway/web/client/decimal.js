// Exact decimals as the wire has them, a 64-bit mantissa and a scale, without `BigInt` where it is hot:
// a mantissa is two 32-bit words, `hi` signed and `lo` not. Pure; `levels.js` and `wire.js` call it.
// `BigInt` appears where a mantissa is beyond 2^53, which no double holds, and only to write or read text.

const TWO_32 = 4294967296;
const DIGITS_SAFE = 15;
const SCALE_MAX = 18;
const POWERS = Array.from({ length: SCALE_MAX + 1 }, (_, scale) => Number(`1e${scale}`));
const I64_MIN = -(2n ** 63n);
const I64_MAX = 2n ** 63n - 1n;

/** The mantissa as a number; exact where it is below 2^53. */
export function mantissa(hi, lo) {
  return hi * TWO_32 + (lo >>> 0);
}

/** The value as the nearest double. */
export function toNumber(hi, lo, scale) {
  const scaled = mantissa(hi, lo);
  // Both are exact then, so the quotient is rounded once.
  return Number.isSafeInteger(scaled) ? scaled / POWERS[scale] : Number(toText(hi, lo, scale));
}

/** The value as the shortest exact decimal. */
export function toText(hi, lo, scale) {
  const scaled = mantissa(hi, lo);
  const whole = Number.isSafeInteger(scaled) ? scaled : (BigInt(hi) << 32n) + BigInt(lo >>> 0);
  let digits = String(whole);
  const sign = digits[0] === "-" ? "-" : "";
  if (sign) digits = digits.slice(1);
  if (scale === 0) return sign + digits;
  digits = digits.padStart(scale + 1, "0");
  let end = digits.length;
  const point = end - scale;
  while (end > point && digits.charCodeAt(end - 1) === 48) end -= 1;
  const fraction = end > point ? `.${digits.slice(point, end)}` : "";
  return sign + digits.slice(0, point) + fraction;
}

/** Digits behind the point of a decimal. */
export function fractionDigits(text) {
  const point = text.indexOf(".");
  return point < 0 ? 0 : text.length - point - 1;
}

/**
 * Writes the mantissa of a decimal at this scale: its low word to `words[at]`, its high one behind it.
 * Throws a `RangeError` at what is no decimal, is finer than the scale, or does not fit.
 */
export function writeMantissa(text, scale, words, at) {
  const missing = scale - fractionDigits(text);
  if (typeof text !== "string" || !/^-?\d+(\.\d+)?$/.test(text) || missing < 0) {
    throw new RangeError(`expected an exact decimal with at most ${scale} digits behind the point; ${JSON.stringify(text)} came`);
  }
  const digits = text.replace(".", "") + "0".repeat(missing);
  if (digits.length <= DIGITS_SAFE) {
    const scaled = Number(digits);
    words[at] = scaled;
    words[at + 1] = Math.floor(scaled / TWO_32);
    return;
  }
  const scaled = BigInt(digits);
  if (scaled < I64_MIN || scaled > I64_MAX) {
    throw new RangeError(`expected a decimal whose mantissa has 64 bits; ${text} came`);
  }
  words[at] = Number(BigInt.asIntN(32, scaled));
  words[at + 1] = Number(scaled >> 32n);
}

/** An unsigned 64-bit number; exact below 2^53. */
export function unsigned(hi, lo) {
  return (hi >>> 0) * TWO_32 + (lo >>> 0);
}

/** An unsigned 64-bit number as text, always exact. */
export function unsignedText(hi, lo) {
  const number = unsigned(hi, lo);
  return String(Number.isSafeInteger(number) ? number : (BigInt(hi >>> 0) << 32n) + BigInt(lo >>> 0));
}

/** Nanoseconds of 64 bits as whole microseconds, rounded down, exactly. */
export function micros(hi, lo) {
  // 2^32 = 4294967 * 1000 + 296
  return hi * 4294967 + Math.floor((hi * 296 + (lo >>> 0)) / 1000);
}
