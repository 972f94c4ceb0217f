/** A drawing of boxes and the lines between them that can be zoomed, dragged, and walked through by keyboard. Boxes are HTML, lines SVG. */
import { layers } from "./layers.js";
import { h, icon } from "./dom.js";

const SVG = "http://www.w3.org/2000/svg";
const MARGIN = 24;
const BEND = 0.45; // of the way between two points, how far a line leaves and arrives level
const [SMALLEST, LARGEST] = [0.2, 1.6];
const SMALLEST_READ = 0.75; // a drawing that is too wide is made so small at first
let drawn = 0;

/**
 * Draw `boxes`, `[{id, element, width, height}]`, and `lines`, `[{source, target, from, to, kind, ends}]`. `from` and `to` say how far below the top
 * of its box a line leaves and arrives, by default at the middle; `ends` are the two names by which lines continue one another, by
 * default the ids of the boxes. An element with `data-end` lights up all that leads to it and away from it. `focus` is the box shown first.
 */
export function canvas(boxes, lines, { label, focus }) {
  const found = layers(boxes, lines);
  const size = { width: found.width + 2 * MARGIN, height: found.height + 2 * MARGIN };
  const arrow = `arrow-${(drawn += 1)}`;
  const image = svg("svg", { width: size.width, height: size.height, "aria-hidden": "true" });
  image.append(marker(arrow));
  const byId = new Map(boxes.map((box) => [box.id, box]));
  const paths = lines.map((line, index) => {
    const path = svg("path", { d: route(line, byId, found, index), class: `line ${line.kind ?? ""}`, "marker-end": `url(#${arrow})` });
    image.append(path);
    const [from, to] = line.ends ?? [line.source, line.target];
    return { from, to, path };
  });
  const board = h("div", { class: "board", style: { width: `${size.width}px`, height: `${size.height}px` } }, image);
  for (const { id, element, width, height } of boxes) {
    const { x, y } = found.places.get(id);
    for (const [name, value] of Object.entries({ left: x + MARGIN, top: y + MARGIN, width, height })) element.style.setProperty(name, `${value}px`);
    board.append(element);
  }
  lightUp(board, paths);
  return frame(board, size, { label, at: found.places.get(focus), focus: byId.get(focus) });
}

function svg(name, attributes) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

function marker(id) {
  const shape = svg("marker", { id, viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 7, markerHeight: 7, orient: "auto-start-reverse" });
  shape.append(svg("path", { d: "M0.500 0.800L7.200 4L0.500 7.200z", class: "arrow" }));
  return shape;
}

function route({ source, target, from, to }, boxes, { places, routes }, index) {
  const [a, b] = [places.get(source), places.get(target)];
  const [left, right] = [boxes.get(source), boxes.get(target)];
  const back = b.x <= a.x; // it closes a circle, or leads from a box to itself
  const start = { x: a.x + (back ? 0 : left.width), y: a.y + (from ?? left.height / 2) };
  const end = { x: b.x + (back ? right.width : 0), y: b.y + (to ?? right.height / 2) };
  const points = [start, ...routes[index], end].map(({ x, y }) => ({ x: x + MARGIN, y: y + MARGIN }));
  return points.slice(1).reduce((text, point, step) => {
    const before = points[step];
    const bend = source === target ? 40 : (point.x - before.x) * BEND;
    return `${text}C${before.x + bend} ${before.y} ${point.x - bend} ${point.y} ${point.x} ${point.y}`;
  }, `M${points[0].x} ${points[0].y}`);
}

/** While something is pointed at or has the focus, show what leads to it and away from it. */
function lightUp(board, paths) {
  const [leaving, arriving] = [grouped(paths, "from"), grouped(paths, "to")];
  const show = (element) => {
    const end = element?.closest?.("[data-end]")?.dataset.end;
    board.classList.toggle("lit", end !== undefined);
    const near = end === undefined ? new Set() : new Set([...reached(end, leaving, "to"), ...reached(end, arriving, "from")]);
    for (const one of paths) one.path.classList.toggle("near", near.has(one));
    const ends = new Set([end, ...[...near].flatMap(({ from, to }) => [from, to])]);
    for (const each of board.querySelectorAll("[data-end]")) each.classList.toggle("near", ends.has(each.dataset.end));
  };
  board.addEventListener("pointerover", ({ target }) => show(target));
  board.addEventListener("pointerleave", () => show(null));
  board.addEventListener("focusin", ({ target }) => show(target));
  board.addEventListener("focusout", ({ relatedTarget }) => show(relatedTarget));
}

function grouped(paths, end) {
  const groups = new Map();
  for (const one of paths) {
    if (!groups.has(one[end])) groups.set(one[end], []);
    groups.get(one[end]).push(one);
  }
  return groups;
}

/** Every path that one comes to from an end by going on and on. */
function reached(end, groups, far) {
  const found = new Set();
  const queue = [end];
  for (const here of queue) {
    for (const one of groups.get(here) ?? []) {
      if (found.has(one)) continue;
      found.add(one);
      queue.push(one[far]);
    }
  }
  return found;
}

/** The board in a window with buttons to zoom; it can be dragged and scrolled. */
function frame(board, size, { label, at, focus }) {
  const spacer = h("div", { class: "board-space" }, board);
  const view = h("div", { class: "board-view", role: "region", "aria-label": label, tabindex: "0" }, spacer);
  let scale = 1;
  const zoom = (wanted) => {
    const middle = [(view.scrollLeft + view.clientWidth / 2) / scale, (view.scrollTop + view.clientHeight / 2) / scale];
    scale = Math.min(LARGEST, Math.max(SMALLEST, wanted));
    board.style.setProperty("transform", `scale(${scale})`);
    spacer.style.setProperty("width", `${size.width * scale}px`);
    spacer.style.setProperty("height", `${size.height * scale}px`);
    view.scrollTo(middle[0] * scale - view.clientWidth / 2, middle[1] * scale - view.clientHeight / 2);
  };
  const button = (text, shape, press) => h("button", { type: "button", class: "button", "aria-label": text, title: text, onclick: press }, icon(shape));
  const whole = () => zoom(Math.min(1, view.clientWidth / size.width, view.clientHeight / size.height));
  drag(view);
  const sizes = new ResizeObserver(() => {
    if (!view.clientWidth) return;
    sizes.disconnect();
    zoom(Math.min(1, Math.max(SMALLEST_READ, view.clientWidth / size.width)));
    if (at && focus) view.scrollTo((at.x + MARGIN + focus.width / 2) * scale - view.clientWidth / 2, (at.y + MARGIN + focus.height / 2) * scale - view.clientHeight / 2);
  });
  sizes.observe(view);
  return h("div", { class: "canvas" }, h("div", { class: "zoom" }, button("Larger", "plus", () => zoom(scale * 1.25)), button("Smaller", "minus", () => zoom(scale / 1.25)), button("Show all of it", "whole", whole)), view);
}

function drag(view) {
  let from = null;
  view.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || event.target.closest("a, button")) return;
    from = { x: event.clientX + view.scrollLeft, y: event.clientY + view.scrollTop };
    view.setPointerCapture(event.pointerId);
    view.classList.add("dragged");
  });
  view.addEventListener("pointermove", (event) => from && view.scrollTo(from.x - event.clientX, from.y - event.clientY));
  for (const name of ["pointerup", "pointercancel"]) {
    view.addEventListener(name, () => {
      from = null;
      view.classList.remove("dragged");
    });
  }
}
