// Elements in a line of code: what the other modules build the page with.

export const $ = (id) => document.getElementById(id);

/** An element with properties, attributes (`class`, `role` and all with a dash) and children. */
export function el(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (/^(class|role|scope)$|-/.test(name)) node.setAttribute(name, value);
    else node[name] = value;
  }
  node.append(...children.filter((child) => child != null));
  return node;
}

export const named = (item) => item.title ?? item.item_id;

/** `run`, once nothing has called it for `ms`. */
export function calmly(run, ms) {
  let timer;
  return (...given) => {
    clearTimeout(timer);
    timer = setTimeout(run, ms, ...given);
  };
}
