// Figures of notebooks: drawn when they come into view, in the colours of the page. Plotly lies beside this file.
(() => {
  const here = document.currentScript.src;
  const boxes = [...document.querySelectorAll('.plot')];
  if (!boxes.length) return;

  function drawn(box) {
    const { data, layout } = JSON.parse(box.querySelector('script').textContent);
    const style = getComputedStyle(document.body);
    const ink = style.color;
    const line = getComputedStyle(document.body).getPropertyValue('--md-default-fg-color--lightest').trim() || '#ccc';
    Object.assign(layout, { paper_bgcolor: 'rgba(0,0,0,0)', plot_bgcolor: 'rgba(0,0,0,0)', autosize: true });
    layout.font = { ...layout.font, color: ink, size: innerWidth < 640 ? 11 : layout.font?.size };
    layout.hoverlabel = { bgcolor: style.backgroundColor, font: { color: ink } };
    for (const key of Object.keys(layout).filter((k) => /^[xy]axis/.test(k))) {
      Object.assign(layout[key], { gridcolor: line, zerolinecolor: line });
    }
    Plotly.react(box.querySelector('.chart'), data, layout, { displaylogo: false, responsive: true });
  }

  const script = document.createElement('script');
  script.src = new URL('plotly.js', here);
  script.onload = () => {
    const shown = new Set();
    const seen = new IntersectionObserver((entries) => {
      for (const entry of entries) {
        if (!entry.isIntersecting || shown.has(entry.target)) continue;
        shown.add(entry.target);
        drawn(entry.target);
      }
    }, { rootMargin: '400px' });
    boxes.forEach((box) => seen.observe(box));
    // The theme's switch changes an attribute of the body.
    new MutationObserver(() => shown.forEach(drawn)).observe(document.body, { attributeFilter: ['data-md-color-scheme'] });
  };
  document.head.append(script);
})();
