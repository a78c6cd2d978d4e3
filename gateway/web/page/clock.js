// What time it is, alike on both threads of the page: what one of them stamps, the other tells the age of.

/** Milliseconds since the Unix epoch, by a clock that nobody sets: with that of the system, ages could be wrong by hours. */
export const nowMs = () => performance.timeOrigin + performance.now();
