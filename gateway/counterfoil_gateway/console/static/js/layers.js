/**
 * Where the nodes of a directed graph go so that edges run from left to right: in layers, with few crossings
 * (Sugiyama, Tagawa, Toda, "Methods for visual understanding of hierarchical system structures", 1981).
 */

const SWEEPS = 8;

/**
 * Lay out `nodes`, `[{id, width, height}]`, and `edges`, `[{source, target}]` of their ids. Returns `{width, height, places, routes}`:
 * the corner of each node by id, and for each edge the points between its ends that it passes through.
 */
export function layers(nodes, edges, { columnGap = 72, rowGap = 16 } = {}) {
  const known = new Set(nodes.map(({ id }) => id));
  const forward = acyclic(nodes, edges.map(({ source, target }) => ({ source, target })).filter(({ source, target }) => source !== target && known.has(source) && known.has(target)));
  const rank = ranks(nodes, forward);
  const cells = new Map(nodes.map(({ id, width, height }) => [id, { id, width, height, rank: rank.get(id), before: [], after: [] }]));
  const chains = new Map();
  for (const { source, target } of forward) {
    const name = pair(source, target);
    if (chains.has(name)) continue;
    const chain = [];
    let last = cells.get(source);
    for (let step = last.rank + 1; step < rank.get(target); step += 1) {
      const cell = { id: `${name} ${step}`, width: 0, height: 0, rank: step, before: [], after: [] };
      cells.set(cell.id, cell);
      chain.push(cell);
      join(last, cell);
      last = cell;
    }
    join(last, cells.get(target));
    chains.set(name, chain);
  }
  const columns = ordered([...cells.values()]);
  const height = place(columns, rowGap);
  const width = spread(columns, columnGap);
  const route = ({ source, target }) => {
    const there = chains.get(pair(source, target));
    return (there ?? [...(chains.get(pair(target, source)) ?? [])].reverse()).map(middle);
  };
  return { width, height, places: new Map(nodes.map(({ id }) => [id, { x: cells.get(id).x, y: cells.get(id).y }])), routes: edges.map(route) };
}

const pair = (source, target) => JSON.stringify([source, target]);
const middle = (cell) => ({ x: cell.x + cell.width / 2, y: cell.y + cell.height / 2 });

function join(from, to) {
  from.after.push(to);
  to.before.push(from);
}

/** The same edges, those turned round that close a circle. */
function acyclic(nodes, edges) {
  const after = new Map(nodes.map(({ id }) => [id, []]));
  for (const edge of edges) after.get(edge.source).push(edge);
  const state = new Map(); // absent = not seen, false = on the way, true = done
  for (const { id } of nodes) {
    const way = state.has(id) ? [] : [{ id, next: 0 }];
    if (way.length) state.set(id, false);
    while (way.length) {
      const here = way.at(-1);
      const edge = after.get(here.id)[here.next++];
      if (!edge) {
        state.set(here.id, true);
        way.pop();
      } else if (state.get(edge.target) === false) edge.turned = true;
      else if (!state.has(edge.target)) {
        state.set(edge.target, false);
        way.push({ id: edge.target, next: 0 });
      }
    }
  }
  return edges.map(({ source, target, turned }) => (turned ? { source: target, target: source } : { source, target }));
}

/** One more than the largest rank before each; what has nothing before it stands directly before what follows. */
function ranks(nodes, edges) {
  const before = new Map(nodes.map(({ id }) => [id, 0]));
  const after = new Map(nodes.map(({ id }) => [id, []]));
  for (const { source, target } of edges) {
    after.get(source).push(target);
    before.set(target, before.get(target) + 1);
  }
  const first = nodes.filter(({ id }) => !before.get(id)).map(({ id }) => id);
  const rank = new Map(first.map((id) => [id, 0]));
  const queue = [...first];
  for (const id of queue) {
    for (const next of after.get(id)) {
      rank.set(next, Math.max(rank.get(next) ?? 0, rank.get(id) + 1));
      before.set(next, before.get(next) - 1);
      if (!before.get(next)) queue.push(next);
    }
  }
  for (const id of first) {
    if (after.get(id).length) rank.set(id, Math.min(...after.get(id).map((next) => rank.get(next))) - 1);
  }
  return rank;
}

/** Columns of cells, ordered by where their neighbours stand. */
function ordered(cells) {
  const columns = [];
  for (const cell of cells) (columns[cell.rank] ??= []).push(cell);
  const number = () => columns.forEach((column) => column.forEach((cell, index) => (cell.index = index)));
  number();
  for (let sweep = 0; sweep < SWEEPS; sweep += 1) {
    const toRight = sweep % 2 === 0;
    for (const column of toRight ? columns : [...columns].reverse()) {
      for (const cell of column) cell.wish = mean((toRight ? cell.before : cell.after).map(({ index }) => index), cell.index);
      column.sort((a, b) => a.wish - b.wish || a.index - b.index);
      column.forEach((cell, index) => (cell.index = index));
    }
  }
  return columns;
}

const mean = (numbers, otherwise) => (numbers.length ? numbers.reduce((sum, each) => sum + each, 0) / numbers.length : otherwise);

/** Give each cell its y, near the middle of its neighbours; returns the height of all. */
function place(columns, gap) {
  for (const column of columns) {
    let y = 0;
    for (const cell of column) {
      cell.y = y;
      y += cell.height + gap;
    }
  }
  for (let sweep = 0; sweep < SWEEPS; sweep += 1) {
    for (const column of sweep % 2 ? [...columns].reverse() : columns) {
      for (const cell of column) cell.wish = mean([...cell.before, ...cell.after].map((other) => middle(other).y), middle(cell).y) - cell.height / 2;
      settle(column, gap);
    }
  }
  const cells = columns.flat();
  const top = Math.min(...cells.map(({ y }) => y));
  for (const cell of cells) cell.y -= top;
  return Math.max(...cells.map(({ y, height }) => y + height));
}

/** As near to their wishes as their order and the gap allow: blocks of cells that touch move as one. */
function settle(column, gap) {
  const blocks = [];
  for (const cell of column) {
    blocks.push({ cells: [[cell, 0]], height: cell.height + gap, y: cell.wish, wishes: cell.wish });
    while (blocks.length > 1 && blocks.at(-2).y + blocks.at(-2).height > blocks.at(-1).y) {
      const lower = blocks.pop();
      const upper = blocks.at(-1);
      upper.cells.push(...lower.cells.map(([each, at]) => [each, at + upper.height]));
      upper.wishes += lower.wishes - upper.height * lower.cells.length;
      upper.height += lower.height;
      upper.y = upper.wishes / upper.cells.length;
    }
  }
  for (const block of blocks) for (const [cell, at] of block.cells) cell.y = block.y + at;
}

/** Give each cell its x; returns the width of all. */
function spread(columns, gap) {
  let x = 0;
  for (const column of columns) {
    const width = Math.max(...column.map((cell) => cell.width));
    for (const cell of column) cell.x = x + (width - cell.width) / 2;
    x += width + gap;
  }
  return x - gap;
}
