// Format numbers for people, with a no-break space before the unit.

const GIB = 2 ** 30;
const NBSP = "\u00a0";

const whole = (value, unit) => `${Math.round(value)}${NBSP}${unit}`;

export const gib = (bytes) => `${(bytes / GIB).toFixed(1)}${NBSP}GiB`;

export const ofTotal = (used, total) => `${(used / GIB).toFixed(1)} of ${gib(total)}`;

export const rate = (bytesPerSecond) => `${(bytesPerSecond / 2 ** 20).toFixed(1)}${NBSP}MiB/s`;

export function seconds(value) {
  if (value > 0 && value < 0.095) return whole(value * 1000, "ms");
  if (value < 9.95 && !Number.isInteger(value)) return `${value.toFixed(1)}${NBSP}s`;
  if (value < 99.5) return whole(value, "s");
  const [minutes, rest] = [Math.floor(value / 60), Math.floor(value % 60)];
  if (minutes < 60) return `${whole(minutes, "min")} ${whole(rest, "s")}`;
  return `${whole(Math.floor(minutes / 60), "h")} ${whole(minutes % 60, "min")}`;
}

// Most contexts are powers of two: 32768 is 32k.
export const tokens = (count) => (count % 1024 ? count.toLocaleString("en") : `${count / 1024}k`);

// The time of day, with the date if it is not today.
export function clock(date) {
  const day = date.toLocaleDateString("en-GB", { day: "numeric", month: "short" });
  const time = date.toLocaleTimeString("en-GB");
  return date.toDateString() === new Date().toDateString() ? time : `${day} ${time}`;
}

const PLAIN_WORD = /^[\w.@:/+-]+$/;

// Quote a word for a shell, for commands to copy.
export const quoted = (word) => (PLAIN_WORD.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`);
