// A page allows no style in an attribute and no style sheet but its own. Plotly writes some of its styles as attributes:
// they are set as properties instead. And it brings a style sheet for maps, which no page here has: it is left out.
(() => {
  const set = Element.prototype.setAttribute;
  Element.prototype.setAttribute = function setAttribute(name, value) {
    if (name === 'style') this.style.cssText = value;
    else set.call(this, name, value);
  };
  const append = document.head.appendChild.bind(document.head);
  document.head.appendChild = (node) => (node.nodeName === 'STYLE' && node.textContent ? node : append(node));
})();
