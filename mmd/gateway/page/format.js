// Numbers as people read them.

const GIB = 2 ** 30;

export const gib = (bytes) => `${(bytes / GIB).toFixed(1)} GiB`;

export const ofTotal = (used, total) => `${(used / GIB).toFixed(1)} of ${gib(total)}`;

export function seconds(value) {
  if (value < 9.95 && !Number.isInteger(value)) return `${value.toFixed(1)} s`;
  if (value < 99.5) return `${Math.round(value)} s`;
  const whole = Math.round(value);
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}

// Powers of two are what contexts mostly are: 32768 is 32k.
export const tokens = (count) => (count % 1024 ? count.toLocaleString("en") : `${count / 1024}k`);

// The time of day; the day too where it is another one.
export function clock(date) {
  const day = date.toLocaleDateString("en-GB", { day: "numeric", month: "short" });
  const time = date.toLocaleTimeString("en-GB");
  return date.toDateString() === new Date().toDateString() ? time : `${day} ${time}`;
}

const PLAIN_WORD = /^[\w.@:/+-]+$/;

// A word as a shell takes it, for commands that are copied.
export const quoted = (word) => (PLAIN_WORD.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`);
