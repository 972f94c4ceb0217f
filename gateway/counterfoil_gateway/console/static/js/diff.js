/** Two texts line by line: which lines both have, which only one has (Myers, "An O(ND) difference algorithm and its variations", 1986). */

const MOST_EDITS = 2_000; // what is kept on the way grows with the square of it: 16 MB here

/**
 * Compare two texts. Returns `[{left, right}]`, numbers of lines from 1; one of the two is null where the other text alone has the line.
 * Texts with more than 2,000 edits between them are taken for one that is put in the place of the other.
 */
export function compareLines(left, right) {
  const a = left.split("\n");
  const b = right.split("\n");
  let head = 0;
  while (head < a.length && head < b.length && a[head] === b[head]) head += 1;
  let tail = 0;
  while (tail < Math.min(a.length, b.length) - head && a[a.length - 1 - tail] === b[b.length - 1 - tail]) tail += 1;
  const same = (count, atLeft, atRight) => Array.from({ length: count }, (_, index) => ({ left: atLeft + index + 1, right: atRight + index + 1 }));
  const middle = edits(a.slice(head, a.length - tail), b.slice(head, b.length - tail));
  return [
    ...same(head, 0, 0),
    ...middle.map((pair) => ({ left: pair.left && pair.left + head, right: pair.right && pair.right + head })),
    ...same(tail, a.length - tail, b.length - tail),
  ];
}

/** The pairs of two texts, by walking back from their ends along the furthest places that fewer edits reached. */
function edits(a, b) {
  const steps = reached(a, b);
  if (!steps) return [...a.map((_, index) => ({ left: index + 1, right: null })), ...b.map((_, index) => ({ left: null, right: index + 1 }))];
  const pairs = [];
  let [x, y] = [a.length, b.length];
  for (let depth = steps.length - 1; depth > 0; depth -= 1) {
    const before = (k) => steps[depth - 1][k + depth - 1];
    const k = x - y;
    const down = comesDown(k, depth, before);
    const from = before(down ? k + 1 : k - 1);
    const fromY = from - (down ? k + 1 : k - 1);
    while (x > from && y > fromY) pairs.push({ left: x--, right: y-- });
    pairs.push(down ? { left: null, right: y-- } : { left: x--, right: null });
  }
  while (x > 0) pairs.push({ left: x--, right: y-- });
  return pairs.reverse();
}

/** Whether the furthest way to a diagonal adds a line of the right text, or takes one of the left away. */
const comesDown = (k, depth, reach) => k === -depth || (k !== depth && reach(k - 1) < reach(k + 1));

/** For each number of edits, how far down the left text each diagonal from `-depth` to `depth` reaches; null when it takes too many. */
function reached(a, b) {
  const steps = [];
  for (let depth = 0; depth <= Math.min(a.length + b.length, MOST_EDITS); depth += 1) {
    const before = (k) => (depth ? steps[depth - 1][k + depth - 1] : 0);
    const now = new Int32Array(2 * depth + 1);
    steps.push(now);
    for (let k = -depth; k <= depth; k += 2) {
      let x = depth === 0 ? 0 : comesDown(k, depth, before) ? before(k + 1) : before(k - 1) + 1;
      while (x < a.length && x - k < b.length && a[x] === b[x - k]) x += 1;
      now[k + depth] = x;
      if (x >= a.length && x - k >= b.length) return steps;
    }
  }
  return null;
}
