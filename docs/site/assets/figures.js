// Figures of notebooks, drawn when they come into view. Plotly lies beside this file, and is read where a page has figures.
(() => {
  const here = document.currentScript.src;
  const boxes = [...document.querySelectorAll('.plot')];
  if (!boxes.length) return;

  function draw(box) {
    const { data, layout } = JSON.parse(box.querySelector('script').textContent);
    Plotly.newPlot(box.querySelector('.chart'), data, layout, { displaylogo: false, responsive: true });
  }

  const script = document.createElement('script');
  script.src = new URL('plotly.js', here);
  script.onload = () => {
    const seen = new IntersectionObserver(
      (entries) => {
        for (const entry of entries) {
          if (!entry.isIntersecting) continue;
          seen.unobserve(entry.target);
          draw(entry.target);
        }
      },
      { rootMargin: '400px' },
    );
    boxes.forEach((box) => seen.observe(box));
  };
  document.head.append(script);
})();
