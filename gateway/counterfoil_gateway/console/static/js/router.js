/** Addresses to pages. Links inside the console change the page without loading it anew; every address can be opened by itself. */

/** One pattern such as `/console/customers/{person_id}` as an expression. */
function compile(pattern) {
  const names = [];
  const source = pattern.replace(/\{(\w+)\}/g, (_, name) => {
    names.push(name);
    return "([^/]+)";
  });
  return { names, expression: new RegExp(`^${source}/?$`) };
}

/** Watches the address and tells which route it means. */
export class Router {
  constructor(routes, show) {
    this.routes = routes.map((route) => ({ ...route, ...compile(route.path) }));
    this.show = show;
  }

  /** Show the page of the present address, and those to come. */
  start() {
    document.addEventListener("click", (event) => {
      const link = event.target.closest?.("a[href]");
      if (!link || event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
      const url = new URL(link.href, location.href);
      if (link.hasAttribute("download") || link.target || url.origin !== location.origin || !url.pathname.startsWith("/console/")) return;
      if (url.pathname === location.pathname && url.hash) return;
      if (!this.find(url.pathname)) return;
      event.preventDefault();
      this.go(url.pathname + url.search + url.hash);
    });
    window.addEventListener("popstate", () => this.now());
    this.now({ first: true });
  }

  /** Go to an address of the console. */
  go(address, { replace = false } = {}) {
    history[replace ? "replaceState" : "pushState"](null, "", address);
    this.now();
  }

  now(options) {
    const { pathname, search } = location;
    this.show(this.find(pathname), new URLSearchParams(search), options);
  }

  find(pathname) {
    for (const route of this.routes) {
      const match = route.expression.exec(pathname);
      if (!match) continue;
      const parameters = {};
      try {
        route.names.forEach((name, index) => (parameters[name] = decodeURIComponent(match[index + 1])));
      } catch {
        return null; // a stray % in the address
      }
      return { route, parameters };
    }
    return null;
  }
}
