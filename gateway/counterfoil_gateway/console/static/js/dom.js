/** Elements built in code. Text is always a text node: nothing that comes from data is ever read as markup. */

/**
 * Make an element.
 * Attributes: `class`, `on<event>` with a function, `style` as an object (set through the CSSOM, which the content security
 * policy allows), booleans (absent when false), everything else as it is. Children: nodes, text, numbers, nested lists; null is nothing.
 */
export function h(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") for (const [property, text] of Object.entries(value)) element.style.setProperty(property, text);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  append(element, children);
  return element;
}

/** Append children as `h` takes them. */
export function append(parent, children) {
  for (const child of [children].flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    parent.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
  return parent;
}

/** Put these children in the place of all there are. */
export function fill(parent, ...children) {
  parent.replaceChildren();
  return append(parent, children);
}

/** An icon in the colour of the text around it; said aloud only when it has a label. */
export function icon(name, label) {
  const attributes = label ? { role: "img", "aria-label": label } : { "aria-hidden": "true" };
  return h("span", { class: `icon icon-${name}`, ...attributes });
}

/** Tell people who listen instead of looking. */
export function announce(text) {
  document.getElementById("announcer").textContent = text;
}
