// The theme switch, and figures that are drawn when they come into view, in the colours of the theme.
(() => {
  // The palette of probes.figures, as it is drawn on a dark ground.
  const DARK = {
    '#1f2933': '#e4e8ed', '#7b8794': '#98a4b1', '#e4e7eb': '#323c47', '#cbd2d9': '#4b5865', '#2563a8': '#6ea8ea',
    '#d97706': '#f0a24a', '#2f855a': '#6cc291', '#c53030': '#f08a8a',
  };
  // Without the button that sends a figure to a server of Plotly's.
  const CONFIG = { displaylogo: false, showSendToCloud: false, plotlyServerURL: '', responsive: true };
  const root = document.documentElement;
  const button = document.getElementById('theme');
  const preferred = matchMedia('(prefers-color-scheme: dark)');
  const dark = () => (root.dataset.theme ? root.dataset.theme === 'dark' : preferred.matches);

  // On a narrow page a title is broken into lines, and a legend below the figure gets a line an entry.
  function fitted(data, layout) {
    const words = (layout.title?.text ?? '').split(' ');
    const lines = [''];
    for (const word of words) {
      if (lines.at(-1).length + word.length > 36 && lines.at(-1)) lines.push('');
      lines.push(`${lines.pop()} ${word}`.trim());
    }
    if (layout.title) layout.title = { ...layout.title, text: lines.join('<br>') };
    const above = 16 * (lines.length - 1);
    const entries = data.filter((one) => one.name && one.showlegend !== false).length;
    const below = layout.legend?.orientation === 'h' ? 19 * Math.max(0, entries - 2) : 0;
    layout.margin = { ...layout.margin, t: (layout.margin?.t ?? 60) + above, b: (layout.margin?.b ?? 60) + below };
    layout.height = (layout.height ?? 380) + above + below;
  }

  function drawn(box) {
    let text = box.querySelector('script').textContent;
    if (dark()) for (const [light, other] of Object.entries(DARK)) text = text.replaceAll(light, other);
    const { data, layout } = JSON.parse(text);
    const style = getComputedStyle(root);
    const ground = style.getPropertyValue('--ground') && getComputedStyle(document.body).backgroundColor;
    const ink = getComputedStyle(document.body).color;
    Object.assign(layout, { paper_bgcolor: 'rgba(0,0,0,0)', plot_bgcolor: 'rgba(0,0,0,0)' });
    const narrow = innerWidth < 640; // where the buttons would lie on the title
    const size = narrow ? 11 : layout.font?.size;
    layout.font = { ...layout.font, size, color: ink };
    if (narrow) fitted(data, layout);
    layout.hoverlabel = { bgcolor: ground, font: { color: ink } };
    if (dark()) {
      for (const key of Object.keys(layout).filter((k) => /^[xy]axis/.test(k))) {
        layout[key] = { gridcolor: DARK['#e4e7eb'], zerolinecolor: DARK['#e4e7eb'], ...layout[key] };
      }
    }
    Plotly.react(box.querySelector('.chart'), data, layout, { ...CONFIG, displayModeBar: narrow ? false : 'hover' });
    box.dataset.drawn = dark() ? 'dark' : 'light';
  }

  const boxes = [...document.querySelectorAll('figure.plot')];
  for (const box of boxes) {
    const chart = box.querySelector('.chart');
    chart.style.minHeight = `${chart.dataset.height}px`;
  }
  const seen = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) {
        if (!entry.isIntersecting) continue;
        seen.unobserve(entry.target);
        drawn(entry.target);
      }
    },
    { rootMargin: '400px' },
  );
  boxes.forEach((box) => seen.observe(box));
  addEventListener('beforeprint', () => boxes.filter((box) => !box.dataset.drawn).forEach(drawn));

  function show() {
    button.setAttribute('aria-pressed', String(dark()));
    boxes.filter((box) => box.dataset.drawn).forEach(drawn);
  }
  button.addEventListener('click', () => {
    root.dataset.theme = dark() ? 'light' : 'dark';
    show();
  });
  preferred.addEventListener('change', show);
  show();
})();
