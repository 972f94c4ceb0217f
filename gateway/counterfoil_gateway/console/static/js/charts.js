/** Charts by plotly.js, which is loaded when the first one is shown. They follow the colour scheme and the width of their place. */
import { fill, h } from "./dom.js";

const source = document.querySelector('meta[name="counterfoil:plotly"]').content; // the gateway adds its version
let library;

function load() {
  library ??= new Promise((resolve, reject) => {
    const script = h("script", { src: source, onload: () => resolve(window.Plotly), onerror: () => reject(new Error("The charts could not be loaded.")) });
    document.head.append(script);
  });
  return library;
}

/** The colours in force. */
export function colours() {
  const style = getComputedStyle(document.documentElement);
  const read = (name) => style.getPropertyValue(`--${name}`).trim();
  return Object.fromEntries(["ink", "ink-2", "ink-3", "line", "line-strong", "surface", "accent", "second", "naive", "warn", "sans"].map((name) => [name, read(name)]));
}

/** A colour with this opacity. */
export const faded = (hex, opacity) => hex + Math.round(opacity * 255).toString(16).padStart(2, "0");

/**
 * A chart. `draw(colours)` returns `{data, layout}`; `label` says in words what it shows, for people who do not see it.
 */
export function chart(draw, { height, label, signal }) {
  const place = h("div", { class: "chart", role: "img", "aria-label": label, style: { height: `${height}px` } });
  const scheme = matchMedia("(prefers-color-scheme: dark)");
  let plotly;
  const render = () => {
    const ink = colours();
    const { data, layout } = draw(ink);
    plotly.react(place, data, { ...frame(ink, height), ...layout }, { displayModeBar: false, responsive: false, scrollZoom: false, doubleClick: false, showTips: false });
  };
  const sizes = new ResizeObserver(() => place.isConnected && place.clientWidth && plotly.Plots.resize(place));
  const stop = () => {
    sizes.disconnect();
    scheme.removeEventListener("change", render);
    if (plotly) plotly.purge(place);
  };
  (async () => {
    try {
      plotly = await load();
      if (signal?.aborted) return;
      await new Promise(requestAnimationFrame);
      render();
      scheme.addEventListener("change", render);
      sizes.observe(place);
      signal?.addEventListener("abort", stop, { once: true });
      place.dataset.drawn = "";
    } catch (error) {
      fill(place, h("p", { class: "faint" }, error.message));
    }
  })();
  return place;
}

function frame(ink, height) {
  return {
    height,
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: ink.sans, size: 12, color: ink["ink-2"] },
    margin: { l: 48, r: 12, t: 8, b: 32 },
    showlegend: false,
    dragmode: false,
    hoverlabel: { bgcolor: ink.surface, bordercolor: ink["line-strong"], font: { family: ink.sans, size: 12, color: ink.ink }, align: "left" },
  };
}

/** An axis in the colours in force that cannot be dragged. */
export const axis = (ink, more = {}) => ({
  gridcolor: ink.line, linecolor: ink["line-strong"], zeroline: false, tickcolor: ink["line-strong"], fixedrange: true, automargin: true, ...more,
});
